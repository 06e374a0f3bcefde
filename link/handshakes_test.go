package link

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func tcpAddr(s string) net.Addr { return net.TCPAddrFromAddrPort(netip.MustParseAddrPort(s)) }

// fakeConn is a connection from an address that records whether it was closed.
type fakeConn struct {
	net.Conn
	addr   net.Addr
	closed chan struct{}
}

func connFrom(addr string) *fakeConn {
	return &fakeConn{addr: tcpAddr(addr), closed: make(chan struct{})}
}

func (c *fakeConn) RemoteAddr() net.Addr { return c.addr }

func (c *fakeConn) Close() error {
	close(c.closed)
	return nil
}

// nothingLeft checks that a limiter holds no state.
func nothingLeft(t *testing.T, l *handshakeLimiter) {
	t.Helper()
	if l.running != 0 || l.waitingCount != 0 || len(l.sources) != 0 || len(l.roundRobin) != 0 || len(l.awaitingClient) != 0 {
		t.Errorf("something is left: %+v", l)
	}
}

// A client from another address begins its handshake at once while one address floods
// the node with handshakes whose clients never answer, and after the grace time at the
// latest while many addresses do. A client from the flooding address itself waits for
// the grace time and for the other connections in the round-robin.
func TestHandshakesAreFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHandshakeLimiter(handshakeLimits{maxRunning: 8, reserved: 2, maxWaiting: 20, perSecond: 1000, grace: time.Second})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var inside, refused atomic.Int64
		flood := func(addr string, n int) {
			for range n {
				go func() {
					conn := connFrom(addr)
					h, err := l.acquire(ctx, conn)
					if errors.Is(err, errTooMany) {
						refused.Add(1)
					}
					if err != nil {
						return
					}
					inside.Add(1)
					h.markAwaitingClient()
					select { // until it times out
					case <-time.After(5 * time.Second):
						if h.evicted() {
							t.Error("a handshake for which there was no slot is still running")
						}
					case <-conn.closed:
						if !h.evicted() {
							t.Error("a connection that has a slot was closed")
						}
					}
					h.release()
					inside.Add(-1)
				}()
			}
			time.Sleep(100 * time.Millisecond) // more than the rate requires
			synctest.Wait()
		}
		enter := func(addr string) time.Duration {
			start := time.Now()
			h, err := l.acquire(ctx, connFrom(addr))
			if err != nil {
				t.Fatal(err)
			}
			h.release()
			h.release() // does nothing
			return time.Since(start)
		}
		flood("192.0.2.1:1", 1000)
		if inside.Load() != 6 || refused.Load() != 1000-6-20 {
			t.Errorf("%d are inside, %d were refused", inside.Load(), refused.Load())
		}
		if took := enter("192.0.2.2:1"); took != 0 {
			t.Errorf("a client from elsewhere waited %v", took)
		}
		time.Sleep(3 * time.Second) // 6 slots for a second each
		synctest.Wait()
		flood("192.0.2.1:1", 6)
		if took := enter("192.0.2.1:1"); took > 2*time.Second {
			t.Errorf("a client from the same address waited %v behind 12 others", took)
		}
		for _, addr := range []string{"192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1"} {
			flood(addr, 1000)
		}
		if took := enter("192.0.2.2:1"); took > time.Second {
			t.Errorf("a client from elsewhere waited %v for one of four floods", took)
		}
		cancel()
		time.Sleep(time.Minute)
		synctest.Wait()
		nothingLeft(t, l)
	})
}

// A handshake whose client answers within the grace time, or that waits for this node,
// is never ended in favour of another.
func TestHandshakesAreNotInterrupted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHandshakeLimiter(handshakeLimits{maxRunning: 2, reserved: 0, maxWaiting: 20, perSecond: 1000, grace: time.Second})
		begin := func() *handshake {
			h, err := l.acquire(t.Context(), connFrom("192.0.2.1:1"))
			if err != nil {
				t.Fatal(err)
			}
			return h
		}
		slow, honest := begin(), begin()
		admitted := make(chan *handshake)
		start := time.Now()
		go func() { admitted <- begin() }()
		time.Sleep(2 * time.Second)
		honest.markAwaitingClient()
		time.Sleep(999 * time.Millisecond)
		synctest.Wait()
		if slow.evicted() || honest.evicted() {
			t.Error("a handshake was ended too soon")
		}
		next := <-admitted
		if took := time.Since(start); took != 3*time.Second || !honest.evicted() || slow.evicted() {
			t.Errorf("after %v: slow ended %v, honest ended %v", took, slow.evicted(), honest.evicted())
		}
		for _, h := range []*handshake{slow, honest, next} {
			h.release()
		}
		nothingLeft(t, l)
	})
}

// However fast handshakes are, no more begin than the rate allows, and none waits
// forever.
func TestHandshakePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHandshakeLimiter(handshakeLimits{maxRunning: 10, reserved: 2, maxWaiting: 1000, perSecond: 50, grace: time.Second})
		start := time.Now()
		done := make(chan error)
		for range 110 {
			go func() {
				h, err := l.acquire(t.Context(), connFrom("192.0.2.1:1"))
				if err == nil {
					h.release()
				}
				done <- err
			}()
		}
		for range 110 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took < 2*time.Second || took > 2100*time.Millisecond {
			t.Errorf("110 handshakes took %v, want 10 at once and 50 in a second", took)
		}
	})
}

// A connection that stops waiting leaves no state.
func TestHandshakeGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newHandshakeLimiter(handshakeLimits{maxRunning: 1, reserved: 0, maxWaiting: 10, perSecond: 1000, grace: time.Second})
		h, err := l.acquire(t.Context(), connFrom("192.0.2.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.2:1"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := l.acquire(ctx, connFrom(addr)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", addr, err)
			}
			cancel()
		}
		h.release()
		nothingLeft(t, l)
	})
}

// Chains with a known peer's key are verified before others that arrived earlier.
func TestKnownPeersAreVerifiedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		v := &verifySemaphore{free: 1}
		end := v.acquire(false)
		order := make(chan bool, 4)
		for _, known := range []bool{false, false, true, true} {
			go func() {
				end := v.acquire(known)
				order <- known
				end()
			}()
			synctest.Wait()
		}
		end()
		for _, want := range []bool{true, true, false, false} {
			if got := <-order; got != want {
				t.Errorf("known: got %v, want %v", got, want)
			}
		}
		synctest.Wait()
		if v.free != 1 {
			t.Errorf("%d turns are left", v.free)
		}
	})
}

// A handshake that is delayed only by the pace begins when the pace allows it, even if it
// had to wait for the grace time of others before.
func TestHandshakePaceAfterGrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const atOnce, perSecond = 2, 10
		l := newHandshakeLimiter(handshakeLimits{maxRunning: atOnce, reserved: 0, maxWaiting: 20, perSecond: perSecond, grace: time.Minute})
		var running []*handshake
		for range atOnce {
			h, err := l.acquire(t.Context(), connFrom("10.0.0.1:1"))
			if err != nil {
				t.Fatal(err)
			}
			h.markAwaitingClient()
			running = append(running, h)
		}
		began := make(chan time.Time)
		go func() {
			h, err := l.acquire(t.Context(), connFrom("10.0.0.1:2"))
			if err != nil {
				t.Error(err)
			}
			began <- time.Now()
			h.release()
		}()
		synctest.Wait() // it waits for the end of the grace time
		start := time.Now()
		for _, h := range running {
			h.release()
		}
		if took := (<-began).Sub(start); took > time.Second/perSecond {
			t.Errorf("the handshake began after %v", took)
		}
		synctest.Wait()
		nothingLeft(t, l)
	})
}
