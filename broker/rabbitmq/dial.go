package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// writeTimeout bounds one write to RabbitMQ. RabbitMQ stops reading when it is short
	// of memory or disk, and a machine may become unreachable; without a timeout, a write would
	// then block all users of the connection.
	writeTimeout = 30 * time.Second
	// heartbeat is the heartbeat interval, unless the URL has another one. RabbitMQ sends
	// heartbeats at least that often, and the library closes a connection after 1.5 times
	// this interval without data: six seconds if a machine hangs.
	heartbeat = 4 * time.Second
	// headStart is the delay after which the next target is tried concurrently.
	headStart = time.Second
	// lookupTime bounds the DNS lookup for one of several URLs.
	lookupTime = 2 * time.Second
	// maxTargets bounds the number of targets tried in one attempt to connect.
	maxTargets = 32
)

// target is an endpoint with one of the IP addresses of its host name.
type target struct {
	endpoint
	address string // host and port to dial
	err     error  // why the lookup, or later the connection attempt, has failed
}

// targets resolves all host names concurrently, and returns the targets to dial: in random
// order, so that connections are spread, but those with the address that was used before
// (previous) at the end.
func (e endpoints) targets(ctx context.Context, previous string) []target {
	found := make([][]target, len(e))
	var lookups sync.WaitGroup
	for i, n := range e {
		lookups.Go(func() {
			if len(e) > 1 {
				limited, cancel := context.WithTimeout(ctx, lookupTime)
				defer cancel()
				found[i] = n.lookUp(limited)
				return
			}
			found[i] = n.lookUp(ctx)
		})
	}
	lookups.Wait()
	all := slices.Concat(found...)
	rand.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	slices.SortStableFunc(all, func(x, y target) int {
		switch {
		case x.address == previous && y.address != previous:
			return 1
		case y.address == previous && x.address != previous:
			return -1
		}
		return 0
	})
	return all[:min(len(all), maxTargets)]
}

// lookUp returns a target for each IP address of the host name; if the lookup fails, one
// target with the error.
func (e endpoint) lookUp(ctx context.Context) []target {
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", e.host)
	if err != nil {
		return []target{{endpoint: e, err: err}}
	}
	targets := make([]target, len(ips))
	for i, ip := range ips {
		targets[i] = target{endpoint: e, address: net.JoinHostPort(ip.Unmap().String(), e.port)}
	}
	return targets
}

// dialResult is a connection and its target, or the target with the error of dialing it.
// Closing the socket ends the connection and all pending operations.
type dialResult struct {
	conn   *amqp.Connection
	socket net.Conn
	target
	hasAlternatives bool // there are other targets
}

// dial connects and logs in, and returns the first connection that succeeds. The next
// target is tried when a target fails, and also, concurrently, after headStart. previous is the
// address that was used before. purpose becomes part of the connection's name in RabbitMQ.
// ctx bounds dial, not the life of the connection.
func (e endpoints) dial(ctx context.Context, purpose, previous string) (dialResult, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // ends the other attempts
	targets := e.targets(ctx, previous)
	results := make(chan dialResult, len(targets))
	begun, ended := 0, 0
	var failures []target
	next := time.NewTimer(0)
	defer next.Stop()
	for ended < len(targets) && (ended < begun || ctx.Err() == nil) {
		select {
		case <-next.C:
			if begun < len(targets) && ctx.Err() == nil {
				go targets[begun].dial(ctx, purpose, results)
				begun++
				next.Reset(headStart)
			}
		case r := <-results:
			ended++
			if r.err == nil {
				go closeAll(results, begun-ended)
				r.hasAlternatives = len(targets) > 1
				return r, nil
			}
			failures = append(failures, r.target)
			next.Reset(0)
		}
	}
	if failures == nil {
		return dialResult{}, context.Cause(ctx)
	}
	return dialResult{}, dialError(failures)
}

// closeAll closes the connections of the attempts that were not needed.
func closeAll(results <-chan dialResult, count int) {
	for range count {
		if r := <-results; r.err == nil {
			r.socket.Close()
		}
	}
}

// dialError returns the errors of the targets that failed as one error.
func dialError(failures []target) error {
	slices.SortFunc(failures, func(x, y target) int { return strings.Compare(x.redacted+x.address, y.redacted+y.address) }) // sorted, so that the same error is logged once
	var errs []error
	var texts []string
	for _, f := range failures {
		errs = append(errs, f.err)
		where := f.redacted
		if f.address != "" && f.address != net.JoinHostPort(f.host, f.port) {
			where += " at " + f.address
		}
		texts = append(texts, fmt.Sprintf("connect to %s: %v", where, f.err))
	}
	return &dialErrors{strings.Join(texts, "; "), errs}
}

// dialErrors are the errors of several targets, with one text.
type dialErrors struct {
	text string
	errs []error
}

func (e *dialErrors) Error() string   { return e.text }
func (e *dialErrors) Unwrap() []error { return e.errs }

// dial sends the connection to the target, or the error, to result.
func (t target) dial(ctx context.Context, purpose string, result chan<- dialResult) {
	r := dialResult{target: t}
	if r.err == nil {
		r.conn, r.socket, r.err = t.connect(ctx, purpose)
	}
	result <- r
}

// connect connects and logs in.
func (t target) connect(ctx context.Context, purpose string) (*amqp.Connection, net.Conn, error) {
	var socket net.Conn
	stop := func() bool { return true }
	conn, err := amqp.DialConfig(t.url, amqp.Config{
		Heartbeat:  heartbeat,
		Properties: amqp.Table{"product": "peerlink", "connection_name": "peerlink " + purpose},
		Dial: func(network, _ string) (net.Conn, error) {
			c, err := new(net.Dialer).DialContext(ctx, network, t.address)
			if err != nil {
				return nil, err
			}
			in := io.Reader(c)
			if !strings.HasPrefix(t.url, "amqps:") { // the library encrypts above this connection
				in = newHeaderFilter(c)
			}
			socket = deadlineConn{c, in}
			stop = context.AfterFunc(ctx, func() { c.Close() })
			return socket, nil
		},
	})
	if !stop() || err != nil && ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		if socket != nil {
			socket.Close() // the library does not close it
		}
		return nil, nil, explain(err)
	}
	if h := conn.Config.Heartbeat; h > 0 { // the library's timeout starts with the first frame
		_ = socket.SetReadDeadline(time.Now().Add(3 * h / 2)) // fails only if the connection is lost
	}
	return conn, socket, nil
}

// deadlineConn bounds each write by writeTimeout.
type deadlineConn struct {
	net.Conn
	in io.Reader
}

func (c deadlineConn) Write(p []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(writeTimeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// Read explains timeouts in its error.
func (c deadlineConn) Read(p []byte) (int, error) {
	n, err := c.in.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = readTimeoutError{err}
	}
	return n, err
}

// readTimeoutError is a timeout of a read.
type readTimeoutError struct{ error }

func (readTimeoutError) Error() string   { return "nothing was received from RabbitMQ in time" }
func (readTimeoutError) Timeout() bool   { return true }
func (readTimeoutError) Temporary() bool { return true }
func (s readTimeoutError) Unwrap() error { return s.error }
