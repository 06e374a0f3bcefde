package embedded

import (
	"database/sql/driver"
	"fmt"
	"os"
	"time"
)

const (
	// maxShrinkStep is how many bytes one transaction releases to the disk. Other operations
	// wait for the transaction, which needs about as much space in the write-ahead log. If
	// there is less space, the steps become smaller, down to minShrinkStep.
	maxShrinkStep, minShrinkStep = 4 << 20, 64 << 10
	// shrinkTime bounds the time spent on shrinking in one check of the disk.
	shrinkTime = 200 * time.Millisecond
	// How many bytes must be free in the file before it is shrunk: while the disk is short
	// of space, and while it is not.
	shrinkThresholdShort, shrinkThresholdIdle = 1 << 20, 32 << 20
	// vacuumLimit is how many bytes may be in use in a file that makeShrinkable rewrites.
	vacuumLimit = 64 << 20
)

// shrinkFile truncates the file, in steps, to release its free pages to the disk: if the
// disk, or this user's quota on it, is short of space; and otherwise if the writer has been
// idle since the last check of the disk and at least half of the file is free. The argument
// and the result are how many bytes of the file are free, before and after.
func (w *writer) shrinkFile(freeInFile int64) (int64, error) {
	threshold := int64(shrinkThresholdIdle)
	switch {
	case w.reserve.missing || w.disk.isShort() || isFull(w.lastError()):
		threshold = shrinkThresholdShort
		if w.disk.isTight() {
			threshold = minShrinkStep
		}
		if w.db.walBytes() >= shrinkThresholdShort {
			// The log is truncated first, because shrinking writes to it. If a reader prevents
			// that, the steps below may fail because of missing space, and are then halved.
			_ = w.db.truncateWAL()
		}
	case w.active || freeInFile < w.db.fileBytes()/2:
		return freeInFile, nil
	}
	for start := time.Now(); freeInFile >= threshold && time.Since(start) < shrinkTime; {
		before := freeInFile
		err := w.db.releasePages(w.shrinkStep)
		switch {
		case err == nil:
			w.shrinkStep = min(2*w.shrinkStep, maxShrinkStep)
		case isFull(err) && w.shrinkStep > minShrinkStep:
			w.shrinkStep /= 2
			continue
		default: // for example, another process writes, or there is no space even for the smallest step; the next check tries again
			return freeInFile, nil
		}
		if freeInFile, err = w.db.freeInFile(); err != nil || freeInFile >= before {
			return freeInFile, err
		}
	}
	return freeInFile, nil
}

// freeInFile returns how many bytes of the file are free.
func (w *writeConn) freeInFile() (int64, error) {
	pages, err := w.freePages.number()
	return pages * pageSize, err
}

// releasePages truncates the file by up to step bytes of free pages.
func (w *writeConn) releasePages(step int64) error {
	vacuum, err := w.prepare(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", step/pageSize))
	if err != nil {
		return err
	}
	defer vacuum.close()
	err = w.commitChange(func() error {
		return vacuum.query(func([]driver.Value) bool { return true })
	})
	if err != nil {
		return err
	}
	return w.truncateWAL()
}

// fileBytes and walBytes return the sizes of the file and of its write-ahead log.
func (w *writeConn) fileBytes() int64 { return sizeOf(w.path()) }
func (w *writeConn) walBytes() int64  { return sizeOf(w.walPath) }

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// makeShrinkable rewrites a file that was created with a schema version below 3, once, so that it
// can be shrunk. It skips a file with more than vacuumLimit bytes in use: a later start may
// rewrite it, when it has fewer.
func makeShrinkable(c *conn) error {
	mode, err := c.number("PRAGMA auto_vacuum")
	if err != nil || mode == autoVacuumIncremental {
		return err
	}
	pages, err := c.number("PRAGMA page_count")
	if err != nil {
		return err
	}
	free, err := c.number("PRAGMA freelist_count")
	if err != nil || (pages-free)*pageSize > vacuumLimit {
		return err
	}
	return c.exec(fmt.Sprintf("PRAGMA temp_store = MEMORY; PRAGMA auto_vacuum = %d; VACUUM", autoVacuumIncremental))
}

// autoVacuumIncremental is the value of PRAGMA auto_vacuum for a file that is shrunk by PRAGMA
// incremental_vacuum.
const autoVacuumIncremental = 2
