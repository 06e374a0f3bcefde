// Package logwriter writes a log without ever waiting for its reader: a
// terminal that is stopped, a pipe that is full, a disk that hangs.
package logwriter

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// size is how many bytes of records wait to be written. As many again may be in
// the write that is under way.
const size = 1 << 20

// Writer is an [io.Writer] that never blocks and never fails. A goroutine writes
// what it is given, in order. Records for which there is no room, and those that
// could not be written, are dropped and counted; the first write that succeeds
// after that says how many.
type Writer struct {
	w      io.Writer
	notice func(dropped uint64) []byte

	wake chan struct{}
	done chan struct{} // closed when the goroutine has ended

	total atomic.Uint64 // records dropped

	mu      sync.Mutex
	buf     []byte
	records int    // in buf
	dropped uint64 // since the last notice
	closed  bool
}

// New makes a Writer. Each Write must be one record, as those of slog are. notice
// makes the record that says how many others were dropped.
func New(w io.Writer, notice func(dropped uint64) []byte) *Writer {
	l := &Writer{w: w, notice: notice, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run(l.wake)
	return l
}

// Write takes a record, or drops it.
func (l *Writer) Write(record []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	// Once a record is dropped, so are those after it, until there is a notice
	// between them.
	if l.closed || l.dropped > 0 || len(l.buf)+len(record) > size {
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

// Dropped returns how many records were dropped.
func (l *Writer) Dropped() uint64 { return l.total.Load() }

// Close waits until everything has been written, at most for a time, and reports
// whether it has been. Records given to the Writer after that are dropped.
func (l *Writer) Close(patience time.Duration) bool {
	l.mu.Lock()
	if !l.closed {
		l.closed = true
		close(l.wake)
		l.wake = nil // sending on it has no effect any more
	}
	l.mu.Unlock()
	late := time.NewTimer(patience)
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

// flush writes what has gathered. The memory of spare becomes that of what gathers
// meanwhile; the returned memory is free.
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
