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

// A source is what one party has: an IPv4 address, or 64 bits of IPv6.
func TestSourceOf(t *testing.T) {
	for _, tt := range []struct{ a, b string }{
		{"192.0.2.1:1", "192.0.2.1/32"},
		{"[::ffff:192.0.2.1]:1", "192.0.2.1/32"},
		{"[2001:db8:1:2:3:4:5:6]:1", "2001:db8:1:2::/64"},
		{"[fe80::1%eth0]:1", "fe80::/64"},
	} {
		if got := sourceOf(tcpAddr(tt.a)).String(); got != tt.b {
			t.Errorf("%s is of %s, want %s", tt.a, got, tt.b)
		}
	}
	if got := sourceOf(&net.UnixAddr{}); got.IsValid() {
		t.Errorf("a Unix socket is of %v", got)
	}
}

// Who comes while others flood the gate from one source, with handshakes that
// never end, gets in at once; and while many sources do, after a turn of each.
func TestGateIsFair(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(gateLimits{handshakes: 8, perSource: 2, waiting: 20, perSecond: 1000})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var inside, crowded atomic.Int64
		flood := func(addr string, n int) {
			for range n {
				go func() {
					leave, err := g.enter(ctx, tcpAddr(addr))
					switch {
					case errors.Is(err, errCrowded):
						crowded.Add(1)
					case err == nil:
						inside.Add(1)
						time.Sleep(5 * time.Second) // a slow handshake
						leave()
					}
				}()
			}
			time.Sleep(100 * time.Millisecond) // more than the pace asks for
			synctest.Wait()
		}
		enter := func(addr string) time.Duration {
			start := time.Now()
			leave, err := g.enter(ctx, tcpAddr(addr))
			if err != nil {
				t.Fatal(err)
			}
			leave()
			leave() // does nothing
			return time.Since(start)
		}
		flood("192.0.2.1:1", 1000)
		if inside.Load() != 2 || crowded.Load() != 1000-2-20 {
			t.Errorf("%d are inside, %d were sent away", inside.Load(), crowded.Load())
		}
		if took := enter("192.0.2.2:1"); took != 0 {
			t.Errorf("waited %v", took)
		}
		for _, addr := range []string{"192.0.2.3:1", "192.0.2.4:1", "192.0.2.5:1"} {
			flood(addr, 1000)
		}
		if inside.Load() != 8 {
			t.Errorf("%d are inside", inside.Load())
		}
		if took := enter("192.0.2.2:1"); took > 5*time.Second {
			t.Errorf("waited %v, one handshake takes 5s", took)
		}
		cancel()
		time.Sleep(time.Minute)
		synctest.Wait()
		if g.running != 0 || g.waiting != 0 || len(g.sources) != 0 || len(g.turns) != 0 {
			t.Errorf("something is left: %+v", g)
		}
	})
}

// However fast handshakes are, no more begin than the pace allows, and nobody
// waits for ever.
func TestGatePace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(gateLimits{handshakes: 10, perSource: 10, waiting: 1000, perSecond: 50})
		start := time.Now()
		done := make(chan error)
		for range 110 {
			go func() {
				leave, err := g.enter(t.Context(), tcpAddr("192.0.2.1:1"))
				if err == nil {
					leave()
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

// Who does not want to wait any more leaves nothing behind.
func TestGateGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newGate(gateLimits{handshakes: 1, perSource: 1, waiting: 10, perSecond: 1000})
		leave, err := g.enter(t.Context(), tcpAddr("192.0.2.1:1"))
		if err != nil {
			t.Fatal(err)
		}
		for _, addr := range []string{"192.0.2.1:1", "192.0.2.2:1"} {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			if _, err := g.enter(ctx, tcpAddr(addr)); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%s: %v", addr, err)
			}
			cancel()
		}
		leave()
		if g.running != 0 || g.waiting != 0 || len(g.sources) != 0 || len(g.turns) != 0 {
			t.Errorf("something is left: %+v", g)
		}
	})
}
