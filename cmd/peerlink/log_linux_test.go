package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/admin"
	"peerlink/local"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// logPipe is a pipe to which a service writes its log.
type logPipe struct {
	t             *testing.T
	read, written *os.File
}

func newLogPipe(t *testing.T) *logPipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return &logPipe{t, r, w}
}

// fill fills the pipe, so that the next write blocks.
func (p *logPipe) fill() {
	p.t.Helper()
	fd := int(p.written.Fd())
	// The service shares the open file description, and its writes must block.
	defer func() {
		if err := unix.SetNonblock(fd, false); err != nil {
			p.t.Fatal(err)
		}
	}()
	if err := unix.SetNonblock(fd, true); err != nil {
		p.t.Fatal(err)
	}
	for _, size := range []int{4096, 1} {
		for {
			if _, err := unix.Write(fd, make([]byte, size)); err != nil {
				if !errors.Is(err, unix.EAGAIN) {
					p.t.Fatal(err)
				}
				break
			}
		}
	}
}

// drain reads from the pipe until the given text has appeared.
func (p *logPipe) drain(text string) {
	p.t.Helper()
	if err := p.read.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
		p.t.Fatal(err)
	}
	var got strings.Builder
	buf := make([]byte, 4096)
	for !strings.Contains(got.String(), text) {
		n, err := p.read.Read(buf)
		got.Write(buf[:n])
		if err != nil {
			p.t.Fatalf("the log has no %q: %v\n%s", text, err, strings.Trim(got.String(), "\x00"))
		}
	}
}

// works waits until the service accepts a message with the given routing key, and reports that
// it is ready.
func (s *server) works(routingKey string) {
	s.t.Helper()
	until(s.t, "a message", func() error {
		ctx, cancel := context.WithTimeout(s.t.Context(), 10*time.Second)
		defer cancel()
		client, err := local.Dial(ctx, s.state)
		if err != nil {
			return err
		}
		defer client.Close()
		stored := make(chan error, 1)
		body := `{"type": "RejectedConfig", "debtor_id": 1311862288428302337, "creditor_id": 1103806595073, "config_ts": "2026-01-01T12:00:00Z", "config_seqnum": 1, "config_flags": 0, "config_data": "", "negligible_amount": 0.0, "rejection_code": "NO", "ts": "2026-01-01T12:00:00Z"}`
		if err := client.Send(ctx, "to_creditors", routingKey, "RejectedConfig", []byte(body), func(err error) { stored <- err }); err != nil {
			return err
		}
		select {
		case err := <-stored:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	address, err := admin.ParseAddress("unix:" + filepath.Join(s.state, "admin.sock"))
	if err != nil {
		s.t.Fatal(err)
	}
	until(s.t, "readiness", func() error {
		l, err := admin.NewClient(address).Links(s.t.Context())
		if err == nil && !l.Ready {
			err = fmt.Errorf("not ready: %v", l.Problems)
		}
		return err
	})
}

// terminate ends the service with SIGTERM, and checks that it ends in time without an error.
func (s *server) terminate() {
	s.t.Helper()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	select {
	case err := <-s.exited:
		if err != nil {
			s.t.Errorf("the service ended with %v", err)
		}
	case <-time.After(10 * time.Second):
		s.t.Error("the service has not ended after 10 s")
	}
}

// servedWithPipe is served with a service that writes its log to the pipe.
func servedWithPipe(t *testing.T, p *logPipe) (s *server, routingKey string) {
	t.Helper()
	return served(t, p.written)
}

// served starts a service whose only peer is unreachable, and that writes its log to stderr, or, if it
// is nil, to the usual file. routingKey is that of a message to the peer.
func served(t *testing.T, stderr *os.File) (s *server, routingKey string) {
	t.Helper()
	s = newServer(t, nodetype.AccountingAuthority)
	peer := newServer(t, nodetype.CreditorsAgent)
	nodetest.Peer(t, s.Node, peer.Node)
	s.stderr = stderr
	s.start()
	t.Cleanup(func() { s.process.Process.Kill() })
	return s, smp.OutgoingRoutingKey(nodetype.AccountingAuthority, nodetype.CreditorsAgent, 1311862288428302337, 1103806595073)
}

// A log that is not read does not block the service: it starts, works, is ready, handles
// SIGHUP, and ends normally in time. The log is complete when it is read again.
func TestStuckLog(t *testing.T) {
	t.Parallel()
	p := newLogPipe(t)
	p.fill()
	s, key := servedWithPipe(t, p)
	s.works(key)
	p.drain("msg=serving")
	p.fill()
	if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.works(key)
	s.terminate()
}

// The service does not end when the reader of its log ends.
func TestDeadLogReader(t *testing.T) {
	t.Parallel()
	for _, ignored := range []bool{false, true} {
		t.Run(fmt.Sprint("SIGPIPE ignored at the start ", ignored), func(t *testing.T) {
			if ignored {
				signal.Ignore(syscall.SIGPIPE) // a child inherits it
				defer signal.Reset(syscall.SIGPIPE)
			}
			p := newLogPipe(t)
			s, key := servedWithPipe(t, p)
			p.drain("msg=serving")
			p.read.Close()
			for range 3 { // each SIGHUP is logged
				if err := s.process.Process.Signal(syscall.SIGHUP); err != nil {
					t.Fatal(err)
				}
				s.works(key)
			}
			s.terminate()
		})
	}
}

// The commands of the reference implementation log to standard output. A reader of this log
// that does not read, or that has ended, neither blocks nor ends them.
func TestSwptLog(t *testing.T) {
	t.Parallel()
	for _, dead := range []bool{false, true} {
		t.Run(fmt.Sprint("dead ", dead), func(t *testing.T) {
			n := newSwptNode(t, nodetype.AccountingAuthority, "amqp://127.0.0.1:1")
			p := newLogPipe(t)
			p.fill()
			if dead {
				p.read.Close()
			}
			c := n.command("swpt-server")
			c.Stdout, c.Stderr = p.written, p.written
			if err := c.Start(); err != nil {
				t.Fatal(err)
			}
			exited := make(chan error, 1)
			go func() { exited <- c.Wait() }()
			t.Cleanup(func() { c.Process.Kill() })
			until(t, "the port", func() error {
				conn, err := net.Dial("tcp", n.addr)
				if err == nil {
					conn.Close()
				}
				return err
			})
			for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
				if err := c.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
			}
			select {
			case err := <-exited:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(10 * time.Second):
				t.Error("the service has not ended after 10 s")
			}
		})
	}
}
