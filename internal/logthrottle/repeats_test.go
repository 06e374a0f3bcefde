package logthrottle

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// counted returns the number of entries of a log, and the number of events that they stand
// for.
func counted(t *testing.T, log string) (lines, events int) {
	t.Helper()
	for line := range strings.Lines(log) {
		lines++
		n := 1
		if _, more, ok := strings.Cut(line, "like_this="); ok {
			if _, err := fmt.Sscan(more, &n); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
		}
		events += n
	}
	return lines, events
}

// The first entries are written, the others are counted and written at increasing
// intervals: none is lost, and a flood of any length causes few lines. When it has ended,
// the key is removed.
func TestRepeatsAreCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		log, r := slog.New(slog.NewTextHandler(&buf, nil)), New()
		takeCounts := func() (lines, events int) {
			r.mu.Lock()
			defer r.mu.Unlock()
			defer buf.Reset()
			return counted(t, buf.String())
		}
		const flood = 100_000
		for range flood {
			r.Log(log, slog.LevelWarn, Key{"192.0.2.1/32", "TLS"}, "handshake failed", "err", "x")
			time.Sleep(10 * time.Millisecond)
		}
		r.Log(log, slog.LevelWarn, Key{"192.0.2.2/32", "TLS"}, "handshake failed", "err", "x")
		time.Sleep(2 * lastRepeat)
		synctest.Wait()
		if lines, events := takeCounts(); lines > 25 || events != flood+1 {
			t.Errorf("%d events in %d lines, want %d in few", events, lines, flood+1)
		}
		if len(r.seen) != 0 {
			t.Errorf("%d keys are kept", len(r.seen))
		}

		// Slow repetitions are written immediately at first, then counted.
		for range flood / 1000 {
			r.Log(log, slog.LevelWarn, Key{"192.0.2.1/32", "TLS"}, "handshake failed", "err", "x")
			time.Sleep(500 * time.Millisecond)
		}
		time.Sleep(2 * lastRepeat)
		synctest.Wait()
		if lines, events := takeCounts(); lines > 2*maxAtOnce || events != flood/1000 {
			t.Errorf("%d events in %d lines, want %d in few", events, lines, flood/1000)
		}

		for i := range 2*maxAtOnce + 1 {
			r.Log(log, slog.LevelWarn, Key{"192.0.2.1/32", "TLS"}, "handshake failed", "n", i)
		}
		r.Close()
		r.Log(log, slog.LevelWarn, Key{"192.0.2.1/32", "TLS"}, "handshake failed")
		if lines, events := takeCounts(); lines != maxAtOnce+1 || events != 2*maxAtOnce+1 {
			t.Errorf("%d events in %d lines before the end", events, lines)
		}
	})
}

// The number of keys and of entries is bounded, for any number of sources.
func TestRepeatsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		log, r := slog.New(slog.NewTextHandler(&buf, nil)), New()
		defer r.Close()
		for i := range 10 * maxKeys {
			r.Log(log, slog.LevelWarn, Key{fmt.Sprint(i), "TLS"}, "handshake failed")
		}
		if len(r.seen) > maxKeys+1 {
			t.Errorf("%d keys are kept", len(r.seen))
		}
		if lines := strings.Count(buf.String(), "\n"); lines > maxKeys+maxAtOnce {
			t.Errorf("%d lines", lines)
		}
		r.Log(log, slog.LevelWarn, Key{"1", "expired"}, "another kind")
		if !strings.Contains(buf.String(), "another kind") {
			t.Error("the event of another kind is not logged")
		}
	})
}

// Clients with any number of addresses, each with few events, cause a limited number of
// entries, and all their events are counted.
func TestStrangersAreBoundedTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var buf bytes.Buffer
		log, r := slog.New(slog.NewTextHandler(&buf, nil)), NewForStrangers()
		const sources, each = 20_000, 5
		for i := range sources {
			for range each {
				r.Log(log, slog.LevelWarn, Key{fmt.Sprint(i), "TLS"}, "handshake failed")
			}
			time.Sleep(time.Millisecond)
		}
		r.Close()
		lines, events := counted(t, buf.String())
		if lines > 200 || events != sources*each {
			t.Errorf("%d events in %d lines, want %d in 200 at most", events, lines, sources*each)
		}
	})
}
