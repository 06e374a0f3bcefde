package link_test

import (
	"crypto/tls"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

// pauses returns the pauses logged with the attempts that failed for a reason.
func pauses(t *testing.T, log, reason string) (list []time.Duration) {
	t.Helper()
	for line := range strings.Lines(log) {
		if !strings.Contains(line, "trying again") || !strings.Contains(line, reason) {
			continue
		}
		m := regexp.MustCompile(`pause=(\S+)`).FindStringSubmatch(line)
		if m == nil {
			t.Fatalf("no pause in %s", line)
		}
		d, err := time.ParseDuration(m[1])
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, d)
	}
	return list
}

// A session that the server opens and then ends does not count as a success, however often:
// the pauses between attempts grow. The first confirmed message is a success, after
// which the pauses start anew.
func TestBackOffIsResetBySuccess(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	const shortest = 5 * time.Millisecond
	other.Config.RetryMin, other.Config.RetryMax = shortest, time.Hour
	// The log contains reasons that change, and up to ten entries at once. The pause
	// after attempt n is random, up to 10 ms * 1.5^(n-1).
	const first, last = 8, 12
	var attempts atomic.Int32
	stop := impostor(t, authority, func(conn *tls.Conn) {
		r := stomp.NewReader(conn, stomp.DefaultLimits())
		if _, err := r.ReadFrame(); err != nil {
			return
		}
		n := attempts.Add(1)
		fmt.Fprintf(conn, "CONNECTED\nversion:1.2\n\n\x00ERROR\nmessage:told %d\n\n\x00", min(max(n, first-1), last))
		_, _ = io.Copy(io.Discard, conn)
	})
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	waitForLog(t, other, fmt.Sprintf("told %d", last))
	longest := time.Duration(0)
	for _, p := range pauses(t, other.Log.String(), "told") {
		longest = max(longest, p)
	}
	// All pauses are that short less than once in ten million times.
	if longest <= 2*shortest+time.Millisecond {
		t.Errorf("after %d attempts the longest logged pause was %v:\n%s", last, longest, other.Log)
	}

	stop()
	authority.Start()
	authority.Take(1)
	other.WaitDrained(authority, 0)
	before := len(other.Log.String())
	if err := authority.Stop(); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the next attempt", func() error {
		if log := other.Log.String()[before:]; len(pauses(t, log, "")) == 0 {
			return fmt.Errorf("none in\n%s", log)
		}
		return nil
	})
	if p := pauses(t, other.Log.String()[before:], "")[0]; p > 2*shortest+time.Millisecond {
		t.Errorf("the first pause after a success was %v:\n%s", p, other.Log)
	}
}
