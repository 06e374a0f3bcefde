package link_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
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

// holder is a peer that the test owns, and that holds its connection in a hostile
// way.
type holder struct {
	t         *testing.T
	authority *linktest.Node
	bad       *linktest.Node
	blocking  *blockingBroker // of the authority, if it has such a one
	conn      *tls.Conn
	taken     atomic.Int64 // messages written to the connection
	end       func()       // is called when the peer sees the end of the connection
}

// open opens a session.
func (h *holder) open() {
	h.t.Helper()
	h.conn = session(h.t, h.bad, h.authority)
}

// connect opens a connection on which nothing has been said.
func (h *holder) connect() {
	h.t.Helper()
	conn, err := dialAs(h.bad, h.authority)
	if err != nil {
		h.t.Fatal(err)
	}
	h.t.Cleanup(func() { conn.Close() })
	h.conn = conn
}

// takePlace opens a connection that has the only place for one, though nothing has
// been said on it.
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

// listen reads until the connection ends, and leaves.
func (h *holder) listen() {
	go func() {
		defer h.end()
		_, _ = io.Copy(io.Discard, h.conn)
		h.conn.Close()
	}()
}

// stay reads until the connection ends, and does not leave.
func (h *holder) stay() {
	go func() {
		defer h.end()
		_, _ = io.Copy(io.Discard, h.conn)
	}()
}

// flood sends messages until the connection ends.
func (h *holder) flood() {
	frame := []byte(sendFrame(strings.Repeat("r", 480), translated(h.t, h.bad, h.authority, 1)))
	go func() {
		defer h.end()
		for {
			if _, err := h.conn.Write(frame); err != nil {
				return
			}
			h.taken.Add(1)
		}
	}()
}

func (h *holder) write(text string) {
	h.t.Helper()
	if _, err := io.WriteString(h.conn, text); err != nil {
		h.t.Fatal(err)
	}
}

// status is what the authority knows of the peer.
func (h *holder) status() link.PeerStatus { return statusOf(h.t, h.authority, h.bad) }

// received waits until the authority has read so many messages.
func (h *holder) received(count uint64) {
	h.t.Helper()
	linktest.Eventually(h.t, "reading messages", func() error {
		if n := h.status().Counts.Received; n < count {
			return fmt.Errorf("%d of %d", n, count)
		}
		return nil
	})
}

// stuck waits until nothing has been taken for a while.
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

// blockingBroker does not take the messages of one peer, and lets go of who wants
// to store them at the end of the context only.
type blockingBroker struct {
	broker.Broker
	peer    string
	blocked chan struct{} // closed when somebody waits
	once    sync.Once
}

func (b *blockingBroker) Publish(ctx context.Context, confirmed func(uint64, error)) (broker.Publisher, error) {
	p, err := b.Broker.Publish(ctx, confirmed)
	return blockingPublisher{p, b}, err
}

type blockingPublisher struct {
	broker.Publisher
	b *blockingBroker
}

func (p blockingPublisher) Publish(ctx context.Context, m *broker.Incoming) error {
	if m.Peer != p.b.peer {
		return p.Publisher.Publish(ctx, m)
	}
	p.b.once.Do(func() { close(p.b.blocked) })
	<-ctx.Done()
	return ctx.Err()
}

// However a peer holds its connection, deactivation ends it within seconds, nothing
// that arrives afterwards is taken, and others do not notice.
func TestDeactivationCutsHolder(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name  string
		on    linktest.Kind
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
			h.authority.Config.MaxConnsPerPeer, h.authority.Config.ConnectTimeout = 1, linktest.Patience
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
			h.blocking = &blockingBroker{Broker: h.authority.Config.Broker, peer: h.bad.Identity().ID, blocked: make(chan struct{})}
			h.authority.Config.Broker, h.authority.Config.DrainTimeout = h.blocking, 500*time.Millisecond
		}, func(h *holder) {
			h.open()
			h.listen()
			h.flood()
			<-h.blocking.blocked
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
			select {
			case <-ended:
			case <-time.After(linktest.Patience):
				t.Fatal("the peer still has its connection")
			}
			if took := time.Since(start); took > 8*time.Second {
				t.Errorf("it took %v", took)
			}

			counts := h.status().Counts
			late := sendFrame("late", translated(t, bad, authority, 4711))
			_, _ = io.WriteString(h.conn, late)
			h.connect()
			h.conn.SetDeadline(time.Now().Add(linktest.Patience))
			_, _ = io.WriteString(h.conn, connectFrame+late) // the answer may be there already
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
