package embedded

import (
	"database/sql/driver"
	"fmt"
	"os"
	"time"
)

const (
	// maxShrinkStep is how many bytes of the file one transaction returns to the disk. Other
	// operations wait for the transaction. It needs about as much space in the write-ahead
	// log: without that, the steps become smaller, down to minShrinkStep.
	maxShrinkStep, minShrinkStep = 4 << 20, 64 << 10
	// shrinkTime bounds the time spent on shrinking in one check of the disk.
	shrinkTime = 200 * time.Millisecond
	// shrinkLow and shrinkIdle are how many bytes must be free in the file before it is
	// shrunk: while the disk has little space, and while it has enough.
	shrinkLow, shrinkIdle = 1 << 20, 32 << 20
	// vacuumLimit is the largest size in use, in bytes, of a file that is rewritten when
	// it is opened.
	vacuumLimit = 64 << 20
)

// shrink returns free space in the file to the disk: if the disk, or this user's quota on
// it, has little space, or if the writer is idle. It returns the bytes that are still free in the file.
func (w *writer) shrink(inside int64) (int64, error) {
	least := int64(shrinkIdle)
	switch {
	case w.reserve.missing || w.disk.isShort() || isFull(w.lastError()):
		least = shrinkLow
		if w.db.walBytes() >= shrinkLow {
			_, _ = w.db.checkpoint.number()
		}
	case w.worked || inside < w.db.fileBytes()/2:
		return inside, nil
	}
	for start := time.Now(); inside >= least && time.Since(start) < shrinkTime; {
		before := inside
		err := w.db.shrink(w.shrinkStep)
		switch {
		case err == nil:
			w.shrinkStep = min(2*w.shrinkStep, maxShrinkStep)
		case isFull(err) && w.shrinkStep > minShrinkStep:
			w.shrinkStep /= 2
			continue
		default: // another process writes, or there is no space at all
			return inside, nil
		}
		if inside, err = w.db.freeInside(); err != nil || inside >= before {
			return inside, err
		}
	}
	return inside, nil
}

// freeInside returns how many bytes of the file are free.
func (w *writeConn) freeInside() (int64, error) {
	pages, err := w.freePages.number()
	return pages * pageSize, err
}

// shrink returns up to step bytes of free pages to the disk.
func (w *writeConn) shrink(step int64) error {
	vacuum, err := w.prepare(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", step/pageSize))
	if err != nil {
		return err
	}
	defer vacuum.close()
	err = w.marked(func() error {
		return vacuum.query(func([]driver.Value) bool { return true })
	})
	if err != nil {
		return err
	}
	_, err = w.checkpoint.number()
	return err
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

// makeShrinkable rewrites the file of a version before 3, once, so that it can be shrunk.
// It skips a file with more than vacuumLimit bytes in use; a later start may rewrite it.
func makeShrinkable(c *conn) error {
	mode, err := c.number("PRAGMA auto_vacuum")
	if err != nil || mode == incremental {
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
	return c.exec(fmt.Sprintf("PRAGMA temp_store = MEMORY; PRAGMA auto_vacuum = %d; VACUUM", incremental))
}

// incremental is the value of PRAGMA auto_vacuum for a file that is shrunk by PRAGMA
// incremental_vacuum.
const incremental = 2
