package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// holder is a peer controlled by the test that keeps its connection open in a hostile
// way.
type holder struct {
	t         *testing.T
	authority *linktest.Node
	bad       *linktest.Node
	deaf      sync.Map // the peer's addresses to which nothing can be written
	conn      *tls.Conn
	taken     atomic.Int64 // messages written to the connection
	end       func()       // called when the peer's connection has ended
}

// odd makes the authority call publish instead of storing the peer's messages, and not
// wait for long until they are stored.
func (h *holder) odd(publish func(ctx context.Context, n uint64, confirmed func(uint64, error)) error) {
	cfg := &h.authority.Config
	cfg.Broker, cfg.DrainTimeout = &oddBroker{cfg.Broker, h.bad.Identity().ID, publish}, 500*time.Millisecond
}

// open opens a session.
func (h *holder) open() {
	h.t.Helper()
	h.conn = session(h.t, h.bad, h.authority)
}

// connect opens a connection without sending a frame.
func (h *holder) connect() {
	h.t.Helper()
	conn, err := dialAs(h.bad, h.authority)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	h.conn = conn
}

// takePlace opens a connection, without a frame, that takes the only slot.
func (h *holder) takePlace() {
	h.t.Helper()
	linktest.Eventually(h.t, "the connection's place", func() error {
		h.connect()
		other, err := dialAs(h.bad, h.authority)
		if err != nil {
			return err
		}
		defer other.Close()
		other.SetDeadline(time.Now().Add(5 * time.Second))
		answer, err := io.ReadAll(other)
		if !bytes.Contains(answer, []byte("Too many connections")) {
			h.conn.Close()
			return fmt.Errorf("another one is answered with %q, %v", answer, err)
		}
		return nil
	})
}

// listen reads until the connection ends, and closes it.
func (h *holder) listen() {
	conn := h.conn
	go func() {
		defer h.end()
		_, _ = io.Copy(io.Discard, conn)
		conn.Close()
	}()
}

// stay reads until the connection ends, and does not close it.
func (h *holder) stay() {
	conn := h.conn
	go func() {
		defer h.end()
		_, _ = io.Copy(io.Discard, conn)
	}()
}

// frame is a message with a receipt ID of maximum length.
func (h *holder) frame() string {
	return sendFrame(strings.Repeat("r", 480), translated(h.t, h.bad, h.authority, 1))
}

// flood sends messages until the connection ends.
func (h *holder) flood() {
	conn, frame := h.conn, []byte(h.frame())
	go func() {
		defer h.end()
		for {
			if _, err := conn.Write(frame); err != nil {
				return
			}
			h.taken.Add(1)
		}
	}()
}

// deafen returns a listener on whose connections from deaf addresses nothing can be
// written, as if the window of the other side stayed closed.
func (h *holder) deafen(l net.Listener) net.Listener { return deafListener{l, h} }

type deafListener struct {
	net.Listener
	h *holder
}

func (l deafListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	closed := make(chan struct{})
	return &deafConn{Conn: conn, h: l.h, closed: closed, end: sync.OnceFunc(func() { close(closed) })}, nil
}

type deafConn struct {
	net.Conn
	h      *holder
	closed chan struct{}
	end    func() // closes closed

	mu       sync.Mutex
	deadline time.Time
}

func (c *deafConn) Write(p []byte) (int, error) {
	if _, deaf := c.h.deaf.Load(c.RemoteAddr().String()); !deaf {
		return c.Conn.Write(p)
	}
	c.mu.Lock()
	var late <-chan time.Time
	if !c.deadline.IsZero() {
		late = time.After(time.Until(c.deadline))
	}
	c.mu.Unlock()
	select {
	case <-c.closed:
		return 0, net.ErrClosed
	case <-late:
		return 0, os.ErrDeadlineExceeded
	}
}

func (c *deafConn) SetWriteDeadline(deadline time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.deadline = deadline
	return c.Conn.SetWriteDeadline(deadline)
}

func (c *deafConn) Close() error {
	c.end()
	return c.Conn.Close()
}

func (h *holder) write(text string) {
	h.t.Helper()
	if _, err := io.WriteString(h.conn, text); err != nil {
		h.t.Fatal(err)
	}
}

// status is the authority's status of the peer.
func (h *holder) status() link.PeerStatus { return statusOf(h.t, h.authority, h.bad) }

// received waits until the authority has read this many messages.
func (h *holder) received(count uint64) {
	h.t.Helper()
	linktest.Eventually(h.t, "reading messages", func() error {
		if n := h.status().Counts.Received; n < count {
			return fmt.Errorf("%d of %d", n, count)
		}
		return nil
	})
}

// stuck waits until nothing has been written for a while.
func (h *holder) stuck() {
	h.t.Helper()
	last, since := int64(0), time.Now()
	linktest.Eventually(h.t, "back pressure", func() error {
		if n := h.taken.Load(); n != last {
			last, since = n, time.Now()
		}
		if last == 0 || time.Since(since) < 500*time.Millisecond {
			return fmt.Errorf("%d messages taken", last)
		}
		return nil
	})
}

// oddBroker calls publish for the messages of one peer instead of storing them.
type oddBroker struct {
	broker.Broker
	peer string
	// publish is called with the number of a message on its connection.
	publish func(ctx context.Context, n uint64, confirmed func(uint64, error)) error
}

func (b *oddBroker) Publish(ctx context.Context, confirmed func(uint64, error)) (broker.Publisher, error) {
	p, err := b.Broker.Publish(ctx, confirmed)
	return &oddPublisher{Publisher: p, b: b, confirmed: confirmed}, err
}

type oddPublisher struct {
	broker.Publisher
	b         *oddBroker
	confirmed func(uint64, error)
	count     uint64
}

func (p *oddPublisher) Publish(ctx context.Context, m *broker.Incoming) error {
	if m.Peer != p.b.peer {
		return p.Publisher.Publish(ctx, m)
	}
	p.count++
	return p.b.publish(ctx, p.count, p.confirmed)
}

// However a peer keeps its connection open, deactivation ends it within seconds,
// nothing that arrives afterwards is stored, and other peers are not affected. The end of
// the connection is no error of this node.
func TestDeactivationCutsHolder(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		on    linktest.BrokerSetup
		setup func(h *holder)
		hold  func(h *holder)
	}{
		{"idle", linktest.Embedded, nil, func(h *holder) {
			h.open()
			h.stay()
		}},
		{"half a frame", linktest.Embedded, nil, func(h *holder) {
			h.open()
			h.listen()
			frame := sendFrame("1", translated(h.t, h.bad, h.authority, 1))
			h.write(frame + frame[:100])
			h.received(1)
		}},
		{"no CONNECT", linktest.Embedded, func(h *holder) {
			h.authority.Config.MaxConnsPerPeer, h.authority.Config.ConnectTimeout = 1, linktest.Timeout
		}, func(h *holder) {
			h.takePlace()
			h.listen()
			h.write("STOMP\n")
		}},
		{"receipts unread", linktest.Embedded, nil, func(h *holder) {
			h.open()
			if err := h.conn.NetConn().(*net.TCPConn).SetReadBuffer(4 << 10); err != nil {
				h.t.Fatal(err)
			}
			h.flood()
			h.stuck()
		}},
		{"no room for receipts", linktest.Embedded, func(h *holder) {
			h.authority.Wrap = h.deafen
			h.odd(func(_ context.Context, n uint64, confirmed func(uint64, error)) error {
				confirmed(n, nil) // one confirmation each: there are many receipts
				return nil
			})
		}, func(h *holder) {
			h.open()
			h.deaf.Store(h.conn.LocalAddr().String(), true)
			h.listen()
			h.flood()
			h.stuck()
		}},
		{"above its quota", linktest.EmbeddedWith(embedded.Options{PeerQuota: 20_000}), nil, func(h *holder) {
			h.open()
			h.listen()
			h.flood()
			waitForLog(h.t, h.authority, "fill its quota")
			h.stuck()
		}},
		{"busy", linktest.Embedded, nil, func(h *holder) {
			h.open()
			h.listen()
			h.flood()
			h.received(300)
		}},
		{"a broker that blocks", linktest.Embedded, func(h *holder) {
			h.odd(func(ctx context.Context, _ uint64, _ func(uint64, error)) error {
				<-ctx.Done()
				return ctx.Err()
			})
		}, func(h *holder) {
			h.open()
			h.listen()
			h.flood()
			h.received(1)
		}},
		{"a broker that confirms nothing", linktest.Embedded, func(h *holder) {
			h.odd(func(context.Context, uint64, func(uint64, error)) error { return nil })
		}, func(h *holder) {
			h.open()
			h.listen()
			h.flood()
			h.received(1)
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			authority, honest, bad := linktest.NewOn(t, aa, tt.on), linktest.New(t, ca), linktest.New(t, ca)
			nodetest.Peer(t, authority.Node, honest.Node)
			nodetest.Peer(t, authority.Node, bad.Node)
			authority.Wrap = smallBuffers
			ended := make(chan struct{})
			h := &holder{t: t, authority: authority, bad: bad, end: sync.OnceFunc(func() { close(ended) })}
			if tt.setup != nil {
				tt.setup(h)
			}
			authority.Start()
			honest.Start()
			flows(t, authority, honest, 1)
			tt.hold(h)

			start := time.Now()
			if _, err := authority.DeactivatePeer(context.Background(), bad.Identity().ID); err != nil {
				t.Fatal(err)
			}
			linktest.Eventually(t, "the end in the status", func() error {
				if st := h.status(); st.State != "deactivated" || len(st.Connections) > 0 {
					return fmt.Errorf("%s, connections %+v", st.State, st.Connections)
				}
				return nil
			})
			h.listen() // a side that has not read so far would see the end late
			select {
			case <-ended:
			case <-time.After(linktest.Timeout):
				t.Fatal("the peer still has its connection")
			}
			if took := time.Since(start); took > linktest.Timeout/3 {
				t.Errorf("it took %v", took)
			}

			if log := authority.Log.String(); strings.Contains(log, "level=ERROR") {
				t.Errorf("an error is logged, though the connection only had to end:\n%s", log)
			}
			counts := h.status().Counts
			late := sendFrame("late", translated(t, bad, authority, 4711))
			_, _ = io.WriteString(h.conn, late)
			h.connect()
			h.conn.SetDeadline(time.Now().Add(linktest.Timeout))
			_, _ = io.WriteString(h.conn, connectFrame+late) // the answer may have been received already
			if answer, _ := io.ReadAll(h.conn); !bytes.Contains(answer, []byte("no active link")) {
				t.Errorf("another connection is answered with %q", answer)
			}
			flows(t, authority, honest, 2)
			if now := h.status().Counts; now.Received != counts.Received || now.Stored != counts.Stored {
				t.Errorf("messages were still taken: %+v, before %+v", now, counts)
			}
			depth := 0
			stats, err := authority.Store.Stats(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			for _, q := range stats.Queues {
				if q.Name == aa.Inbox() {
					depth = int(q.Depth)
				}
			}
			if depth < 2 {
				t.Errorf("%d messages in the inbox", depth)
			}
			for _, m := range authority.TakeEach(depth) {
				if bytes.Contains(m.Body, []byte(`"number 4711"`)) {
					t.Errorf("taken: %s", m.Body)
				}
			}
		})
	}
}
