// Package logwriter writes a log without blocking the callers, even if the terminal is
// stopped, the pipe is full, or the disk hangs.
package logwriter

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// maxQueued is the maximum size, in bytes, of the records that wait to be written. The current
// write may have as many again.
const maxQueued = 1 << 20

// Writer is an [io.Writer] that never blocks and never fails. A goroutine writes the
// records, in order. Records for which there is no space, and those that could not be
// written, are dropped and counted; the next write that succeeds includes the number.
type Writer struct {
	w      io.Writer
	notice func(dropped uint64) []byte

	wake chan struct{}
	done chan struct{} // closed when the goroutine has ended

	total atomic.Uint64 // number of dropped records

	mu      sync.Mutex
	buf     []byte
	records int    // in buf
	dropped uint64 // number of dropped records since the last notice
	closed  bool
}

// New returns a Writer. Each Write must be one record, as with slog. notice returns the
// record that reports the number of dropped ones.
func New(w io.Writer, notice func(dropped uint64) []byte) *Writer {
	l := &Writer{w: w, notice: notice, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run(l.wake)
	return l
}

// Write queues a record, or drops it.
func (l *Writer) Write(record []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// After a dropped record, all further ones are dropped, until a notice is written in
	// between.
	if l.closed || l.dropped > 0 || len(l.buf)+len(record) > maxQueued {
		l.dropLocked(1)
	} else {
		l.buf = append(l.buf, record...)
		l.records++
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return len(record), nil
}

func (l *Writer) dropLocked(records int) {
	l.dropped += uint64(records)
	l.total.Add(uint64(records))
}

// Dropped returns the number of dropped records.
func (l *Writer) Dropped() uint64 { return l.total.Load() }

// Close waits until all records are written, at most for timeout, and reports whether none
// is waiting any more. Records that could not be written are dropped, and so are later ones.
func (l *Writer) Close(timeout time.Duration) bool {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.wake)
		l.wake = nil // sending on it has no effect any more
	}
	l.mu.Unlock()
	late := time.NewTimer(timeout)
	defer late.Stop()
	select {
	case <-l.done:
		return true
	case <-late.C:
		return false
	}
}

func (l *Writer) run(wake <-chan struct{}) {
	defer close(l.done)
	var spare []byte
	for range wake {
		spare = l.flush(spare)
	}
	l.flush(spare)
}

// flush writes the queued records. Records that arrive meanwhile are queued in the memory
// of spare; the returned memory is free.
func (l *Writer) flush(spare []byte) []byte {
	l.mu.Lock()
	buf, records, dropped := l.buf, l.records, l.dropped
	l.buf, l.records, l.dropped = spare[:0], 0, 0
	l.mu.Unlock()
	text := buf
	if dropped > 0 {
		text = append(text, l.notice(dropped)...)
	}
	if len(text) == 0 {
		return buf
	}
	n, err := l.w.Write(text)
	if err == nil {
		return buf
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.dropLocked(max(0, records-bytes.Count(text[:n], []byte("\n"))))
	l.dropped += dropped // the notice was not written
	return buf
}
