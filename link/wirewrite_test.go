package link

import (
	"net"
	"sync"
	"testing"
	"time"

	"peerlink/stomp"
)

// A write below TLS always has a deadline: the one that was set, or a default from now
// on, because TLS also writes by itself, long after the last write of its user.
func TestEveryWriteHasADeadline(t *testing.T) {
	below := &deadlineConn{}
	c := &wireConn{Conn: below}
	write := func() time.Duration {
		if _, err := c.Write(nil); err != nil {
			t.Fatal(err)
		}
		return time.Until(below.deadline()).Round(time.Minute)
	}
	if left := write(); left != stomp.WriteTimeout {
		t.Errorf("without a deadline a write may take %v", left)
	}
	for _, set := range []func(time.Time) error{c.SetWriteDeadline, c.SetDeadline} {
		if err := set(time.Now().Add(time.Hour)); err != nil {
			t.Fatal(err)
		}
		if left := write(); left != time.Hour {
			t.Errorf("with a deadline in an hour a write may take %v", left)
		}
		if err := set(time.Time{}); err != nil {
			t.Fatal(err)
		}
		if left := time.Until(below.deadline()).Round(time.Minute); left != stomp.WriteTimeout {
			t.Errorf("a write that is under way may take %v", left)
		}
		below.SetWriteDeadline(time.Unix(1, 0)) // as if more than a minute had passed
		if left := write(); left != stomp.WriteTimeout {
			t.Errorf("a minute later a write may take %v", left)
		}
	}
}

// deadlineConn accepts all writes.
type deadlineConn struct {
	net.Conn
	mu    sync.Mutex
	until time.Time
}

func (c *deadlineConn) deadline() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.until
}

func (c *deadlineConn) SetWriteDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.until = t
	return nil
}

func (c *deadlineConn) SetReadDeadline(time.Time) error { return nil }

func (c *deadlineConn) Write(p []byte) (int, error) { return len(p), nil }
