// Package httplimit bounds what the clients of an HTTP server use, so that clients that send
// nothing, are slow, or are too many do not prevent others from being served. These are the
// bounds of a server for which [Apply] was called:
//
//   - Connections, from the moment they are accepted until they are closed, whatever they
//     do: 1,024, or a sixteenth of the limit of open files if that is less. A connection
//     beyond that closes the oldest one of the source that has the most. A connection is
//     as old as its last request, or its last response if that is later.
//   - Bodies of requests: none with GET and HEAD, else 8 KiB, and one second to arrive.
//     They are read before the handler is called, which therefore waits for no client
//     until it writes.
//   - Running handlers: as many as connections. That matters only if handlers hang: the
//     handler of a connection that was closed may still run.
//   - Memory of responses: handlers with large responses are wrapped with [Buffered].
//
// The time for reading a request and for writing a response is bounded by the fields of
// [http.Server].
package httplimit

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"time"

	"peerlink/internal/pendingconns"
)

const (
	maxConns    = 1024
	maxBody     = 8 << 10 // bytes of the body of a request
	bodyTimeout = time.Second
)

// Apply bounds the clients of s, which must not serve yet and must have a Handler and a
// ReadTimeout.
// openFiles is the limit of open files of the process.
func Apply(s *http.Server, openFiles int) {
	conns := max(min(maxConns, openFiles/16), 8)
	l := &limiter{
		next:        s.Handler,
		readTimeout: s.ReadTimeout,
		conns:       pendingconns.New[netip.Prefix](conns),
		running:     make(chan struct{}, conns),
		responses:   pendingconns.New[netip.Prefix](maxResponses),
		clients:     make(map[net.Conn]*client),
	}
	s.Handler = l
	s.DisableGeneralOptionsHandler = true // it reads the body itself
	s.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, clientKey{}, l.add(c))
	}
	s.ConnState = l.connState
}

// limiter is the handler of a server with bounds.
type limiter struct {
	next        http.Handler
	readTimeout time.Duration
	conns       *pendingconns.Set[netip.Prefix] // all connections
	running     chan struct{}                   // has an element for each running handler
	responses   *pendingconns.Set[netip.Prefix] // the connections to which Buffered is writing

	mu      sync.Mutex
	clients map[net.Conn]*client // by connection, until that is closed
}

// client is a connection of a client.
type client struct {
	limiter *limiter
	conn    net.Conn
	source  netip.Prefix
	entry   *pendingconns.Conn[netip.Prefix] // in limiter.conns
}

type clientKey struct{}

// Conn returns the connection on which a request to a server was received for which [Apply] was called.
func Conn(r *http.Request) net.Conn { return r.Context().Value(clientKey{}).(*client).conn }

// Close is called when the connection is closed in favour of others. What was not sent yet
// is dropped: the kernel would keep it for a client that does not read.
func (c *client) Close() error {
	if tcp, ok := c.conn.(interface{ SetLinger(sec int) error }); ok {
		_ = tcp.SetLinger(0) // without it, Close is still correct
	}
	return c.conn.Close()
}

// add is called with each accepted connection.
func (l *limiter) add(conn net.Conn) *client {
	c := &client{limiter: l, conn: conn, source: pendingconns.SourceOf(conn.RemoteAddr())}
	l.mu.Lock()
	l.clients[conn] = c
	l.mu.Unlock()
	c.entry = l.conns.Add(c.source, c)
	return c
}

// connState is called when the state of a connection changes.
func (l *limiter) connState(conn net.Conn, state http.ConnState) {
	l.mu.Lock()
	c := l.clients[conn]
	if state == http.StateClosed || state == http.StateHijacked {
		delete(l.clients, conn)
	}
	l.mu.Unlock()
	switch state {
	case http.StateActive, http.StateIdle: // it has sent a request, or got a response
		c.entry.Touch()
	case http.StateClosed, http.StateHijacked:
		c.entry.Remove()
	}
}

// ServeHTTP serves a request whose header is complete.
func (l *limiter) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.ContentLength != 0 && !l.readBody(w, r) {
		return
	}
	if !l.acquire(l.running, w, r) {
		return
	}
	defer func() { <-l.running }()
	l.next.ServeHTTP(w, r)
}

// readBody reads the body of a request into memory before the handler is called: otherwise
// net/http would wait for the rest of a body before and after it writes a response. It
// responds to the request and returns false if the body is not allowed, too long or late.
func (l *limiter) readBody(w http.ResponseWriter, r *http.Request) bool {
	conn := http.NewResponseController(w)
	if r.Method == http.MethodGet || r.Method == http.MethodHead {
		_ = conn.SetReadDeadline(time.Unix(1, 0)) // what is missing of the body is not waited for
		w.Header().Set("Connection", "close")
		http.Error(w, "expected no body with GET and HEAD", http.StatusBadRequest)
		return false
	}
	err := conn.SetReadDeadline(time.Now().Add(bodyTimeout))
	body, tooLong := []byte(nil), (*http.MaxBytesError)(nil)
	if err == nil {
		body, err = io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	}
	if err == nil {
		err = conn.SetReadDeadline(time.Now().Add(l.readTimeout))
	}
	switch {
	case err == nil:
		r.Body = io.NopCloser(bytes.NewReader(body))
		return true
	case errors.As(err, &tooLong):
		http.Error(w, "the body of the request is too long", http.StatusRequestEntityTooLarge)
	default:
		w.Header().Set("Connection", "close")
		http.Error(w, "the body of the request did not arrive", http.StatusRequestTimeout)
	}
	return false
}

// acquire waits for a free slot and takes it. It responds to the request and returns false
// if there is none within the server's ReadTimeout. The context of a request alone does not
// bound the wait: net/http does not detect that a connection was closed once the client has
// sent a part of its next request.
func (l *limiter) acquire(slots chan struct{}, w http.ResponseWriter, r *http.Request) bool {
	ctx := r.Context()
	if l.readTimeout > 0 {
		limited, cancel := context.WithTimeout(ctx, l.readTimeout)
		defer cancel()
		ctx = limited
	}
	select {
	case slots <- struct{}{}:
		return true
	case <-ctx.Done():
		w.Header().Set("Retry-After", "1")
		http.Error(w, "too many requests at once, try again later", http.StatusServiceUnavailable)
		return false
	}
}
