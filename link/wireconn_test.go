package link

import (
	"errors"
	"net"
	"os"
	"testing"
	"testing/synctest"
	"time"
)

// After limitWrites, no write lasts longer than its limit, whatever deadline is set later; an earlier
// deadline still counts.
func TestLimitWrites(t *testing.T) {
	for deadline, want := range map[time.Duration]time.Duration{0: time.Second, time.Minute: time.Second, time.Millisecond: time.Millisecond} {
		synctest.Test(t, func(t *testing.T) {
			ours, peers := net.Pipe()
			defer ours.Close()
			defer peers.Close() // it reads nothing
			c, start := &wireConn{Conn: ours}, time.Now()
			c.limitWrites(time.Second)
			var at time.Time
			if deadline > 0 {
				at = start.Add(deadline)
			}
			if err := c.SetWriteDeadline(at); err != nil {
				t.Fatal(err)
			}
			if _, err := c.Write([]byte("x")); !errors.Is(err, os.ErrDeadlineExceeded) || time.Since(start) != want {
				t.Errorf("deadline %v: the write ends after %v, %v, want %v", deadline, time.Since(start), err, want)
			}
		})
	}
}
