package embedded

import (
	"reflect"
	"strconv"
	"testing"
)

// A watcher gets all later messages, complete, in order, including those that are removed
// immediately; it removes none.
func TestWatch(t *testing.T) {
	s := openTest(t, Options{})
	publishBodies(t, s, "accounts_in", "before")
	w := s.Watch("accounts_in")
	defer w.Close()
	sub := subscribe(t, s, "accounts_in")
	want := *benchMessage()
	publishN(t, s, 100)
	_, seqs := take(t, sub, 101)
	ack(t, sub, seqs...)
	for range 100 {
		m, missed, err := w.Next(testContext(t))
		if err != nil || missed != 0 || !reflect.DeepEqual(m, want) {
			t.Fatalf("got %+v, %d missed, %v", m, missed, err)
		}
	}
}

// A watcher whose Next is not called blocks no other operation, and uses bounded memory.
// Missed messages are counted; the others are in order.
func TestWatchSlow(t *testing.T) {
	s := openTest(t, Options{})
	w := s.Watch("accounts_in")
	defer w.Close()
	// Available to the watcher are the first watchBuffer messages, which fill its buffer, and the
	// last left messages, which are not removed from the file.
	const total, left = 5 * watchBuffer, 10
	publishBodies(t, s, "accounts_in", numbers(total)...)
	sub := subscribe(t, s, "accounts_in")
	_, seqs := take(t, sub, total)
	ack(t, sub, seqs[:total-left]...)
	if n := len(w.buffered); n > watchBuffer {
		t.Errorf("the watcher holds %d messages, want at most %d", n, watchBuffer)
	}
	seen, missed := 0, uint64(0)
	for last := 0; last < total; {
		m, gap, err := w.Next(testContext(t))
		if err != nil {
			t.Fatal(err)
		}
		want := last + int(gap) + 1
		if n, _ := strconv.Atoi(string(m.Body)); n != want {
			t.Fatalf("got message %d after message %d and %d missed ones, want %d", n, last, gap, want)
		}
		last = want
		seen++
		missed += gap
	}
	if seen != watchBuffer+left || missed != total-watchBuffer-left {
		t.Errorf("%d seen and %d missed of %d", seen, missed, total)
	}
}

// A watcher gets messages stored by another process, in order with those of its own
// process.
func TestWatchOtherProcess(t *testing.T) {
	s := openTest(t, Options{})
	w := s.Watch("accounts_in")
	defer w.Close()
	other := openFile(t, s.path, Options{})
	publishBodies(t, other, "accounts_in", "1", "2")
	publishBodies(t, s, "accounts_in", "3")
	publishBodies(t, other, "accounts_in", "4")
	for _, want := range numbers(4) {
		m, missed, err := w.Next(testContext(t))
		if err != nil || missed > 0 || string(m.Body) != want || m.Exchange != "accounts_in" {
			t.Fatalf("got %+v, %d missed, %v, want %s", m, missed, err, want)
		}
	}
}
