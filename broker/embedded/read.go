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
// the log. Health reports a failure because of the file or the disk until a read for the
// same purpose succeeds.
func (s *Store) read(ctx context.Context, what string, f func(*readConn) error) error {
	err := explain(s.readers.use(ctx, f))
	s.faults.record(what, err)
	if err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// faults records the reads that fail because of the file or the disk.
type faults struct {
	log *slog.Logger

	mu       sync.Mutex
	readings map[string]*Trouble // by purpose
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
	before := f.readings[what]
	switch {
	case isFault(err):
		if before == nil && len(f.readings) < maxFaults {
			f.readings[what] = &Trouble{Since: time.Now(), Err: fmt.Errorf("%s: %w", what, err)}
			f.log.Error("can not read the message store", "reading", what, "err", err)
		}
	case err == nil && before != nil:
		delete(f.readings, what)
		f.log.Info("the message store can be read again", "reading", what, "after", time.Since(before.Since).Round(time.Millisecond))
	}
}

// trouble returns the error of the read that has failed for the longest time, or nil if no
// read is known to fail.
func (f *faults) trouble() *Trouble {
	f.mu.Lock()
	defer f.mu.Unlock()
	var oldest *Trouble
	for _, t := range f.readings {
		if oldest == nil || t.Since.Before(oldest.Since) {
			oldest = t
		}
	}
	return oldest
}
