package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// read calls f with a connection for reading. what describes the purpose, for errors and
// the log. Health returns a failure that is due to the file or the disk until a read for the
// same purpose succeeds, or until such a read has not failed for recheckInterval and a check of
// the file finds no damage.
func (s *Store) read(ctx context.Context, what string, f func(*readConn) error) error {
	err := explain(s.readers.use(ctx, f))
	s.faults.record(what, err)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// recheckInterval is how often the file is checked while reads are known to fail. A caller may
// never repeat a read that has failed: the application may have disconnected.
const recheckInterval = 30 * time.Second

// faults records the reads that fail because of the file or the disk.
type faults struct {
	log      *slog.Logger
	check    func() error // checks the file for damage, in bounded time
	interval time.Duration

	mu      sync.Mutex
	reads   map[string]*failedRead // by purpose
	timer   *time.Timer            // calls recheck; nil if none is scheduled
	stopped bool
}

// failedRead is a read that has failed, and has not succeeded since.
type failedRead struct {
	Problem
	last time.Time // when the read failed last
}

// maxFaults bounds the number of reads in faults.
const maxFaults = 1000

// isFault reports whether the reason of a read error is the file or the disk.
func isFault(err error) bool {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_OK, sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return errors.Is(err, errDamaged)
	}
	return true
}

// record records the result of a read.
func (f *faults) record(what string, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	before := f.reads[what]
	switch {
	case isFault(err) && before != nil:
		before.last = time.Now()
	case isFault(err) && len(f.reads) < maxFaults:
		now := time.Now()
		f.reads[what] = &failedRead{Problem{Since: now, Err: fmt.Errorf("%s: %w", what, err)}, now}
		f.log.Error("can not read the message store", "reading", what, "err", err)
		f.setTimer()
	case err == nil && before != nil:
		f.end(what)
	}
}

// end ends the failure of a read. The caller holds f.mu.
func (f *faults) end(what string) {
	f.log.Info("the message store can be read again", "reading", what, "after", time.Since(f.reads[what].Since).Round(time.Millisecond))
	delete(f.reads, what)
}

// setTimer schedules a check if there are failed reads and no check is scheduled. The caller
// holds f.mu.
func (f *faults) setTimer() {
	if len(f.reads) > 0 && f.timer == nil && !f.stopped {
		f.timer = time.AfterFunc(f.interval, f.recheck)
	}
}

// recheck ends the failures of reads that have not failed again for the interval, unless
// f.check fails.
func (f *faults) recheck() {
	err := f.check()
	f.mu.Lock()
	defer f.mu.Unlock()
	for what, r := range f.reads {
		if err == nil && time.Since(r.last) >= f.interval {
			f.end(what)
		}
	}
	f.timer = nil
	f.setTimer()
}

// stop ends the checks.
func (f *faults) stop() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stopped = true
	if f.timer != nil {
		f.timer.Stop()
	}
}

// problem returns the error of the read that has failed for the longest time, or nil if no
// read is known to fail.
func (f *faults) problem() *Problem {
	f.mu.Lock()
	defer f.mu.Unlock()
	var oldest *Problem
	for _, r := range f.reads {
		if oldest == nil || r.Since.Before(oldest.Since) {
			oldest = &r.Problem
		}
	}
	return oldest
}
