package logwriter

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"
)

func notice(n uint64) []byte { return fmt.Appendf(nil, "dropped %d\n", n) }

// gate is a writer that blocks until it is opened.
type gate struct {
	entered chan struct{} // has an element for each write that has begun
	open    chan struct{}
	mu      sync.Mutex
	err     error
	got     bytes.Buffer
}

func newGate() *gate { return &gate{entered: make(chan struct{}, 1000), open: make(chan struct{})} }

func (g *gate) Write(b []byte) (int, error) {
	g.entered <- struct{}{}
	<-g.open
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.err != nil {
		return 0, g.err
	}
	return g.got.Write(b)
}

func (g *gate) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.err = err
}

// While the underlying writer blocks, records are queued up to a bound, then dropped, and
// callers do not block. When it continues, the queued records are written in order, and
// then the exact number of dropped ones.
func TestStuckReader(t *testing.T) {
	g := newGate()
	l := New(g, notice)
	fmt.Fprintln(l, "first")
	<-g.entered // the writer is blocked now
	record := strings.Repeat("x", 999) + "\n"
	const records = 3 * maxQueued / 1000
	for range records {
		if n, err := io.WriteString(l, record); n != len(record) || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
	}
	if len(l.buf) > maxQueued {
		t.Errorf("%d bytes are kept, want at most %d", len(l.buf), maxQueued)
	}
	close(g.open)
	if !l.Close(time.Minute) {
		t.Fatal("Close reports that not all records are written")
	}
	kept := maxQueued / len(record)
	want := "first\n" + strings.Repeat(record, kept) + fmt.Sprintf("dropped %d\n", records-kept)
	if got := g.got.String(); got != want {
		t.Errorf("got %d bytes, which end with %q, want %d", len(got), got[max(0, len(got)-50):], len(want))
	}
	if l.Dropped() != uint64(records-kept) {
		t.Errorf("%d dropped, want %d", l.Dropped(), records-kept)
	}
}

// Records that can not be written are dropped and counted, and later ones are written when
// that is possible again.
func TestFailingWriter(t *testing.T) {
	g := newGate()
	close(g.open)
	g.fail(errors.New("no space left on device"))
	l := New(g, notice)
	for n := 1; n <= 3; n++ {
		fmt.Fprintln(l, "lost")
		for l.Dropped() < uint64(n) {
			time.Sleep(time.Millisecond)
		}
	}
	<-g.entered
	g.fail(nil)
	fmt.Fprintln(l, "lost too, or the notice comes first")
	l.Close(time.Minute)
	got := g.got.String()
	if !strings.HasPrefix(got, "dropped 3\n") && !strings.HasPrefix(got, "dropped 4\n") {
		t.Errorf("%q", got)
	}
}

// Close waits for a blocked writer, but not for long.
func TestCloseIsBounded(t *testing.T) {
	g := newGate()
	l := New(g, notice)
	fmt.Fprintln(l, "text")
	if l.Close(time.Millisecond) {
		t.Error("Close reports that the record is written")
	}
	fmt.Fprintln(l, "late")
	close(g.open)
	if !l.Close(time.Minute) {
		t.Error("Close reports that the record is not written")
	}
	if got := g.got.String(); !strings.HasPrefix(got, "text\n") || strings.Contains(got, "late") {
		t.Errorf("%q", got)
	}
}
