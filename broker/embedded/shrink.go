package embedded

import (
	"database/sql/driver"
	"fmt"
	"os"
	"strings"
	"time"
)

const (
	// shrinkStep is how many bytes of the file one transaction gives back to the
	// disk. Others wait for it.
	shrinkStep = 4 << 20
	// shrinkTime is how long a look at the disk may take for that.
	shrinkTime = 200 * time.Millisecond
	// shrinkLow and shrinkIdle are how many bytes must be free inside the file
	// to be given back: when the disk has little room, and when it has enough.
	shrinkLow, shrinkIdle = 1 << 20, 32 << 20
	// vacuumLimit is how many bytes a file may have in use to be rewritten when it
	// is opened.
	vacuumLimit = 64 << 20
)

// shrink gives what is free inside the file back to the disk: when the disk has
// little room, or when nothing else is to do. It returns what is left inside.
func (w *writer) shrink(inside int64) (int64, error) {
	least := int64(shrinkIdle)
	switch {
	case w.reserve.missing || w.disk.isShort():
		least = shrinkLow
		if w.db.walBytes() >= shrinkLow {
			_, _ = w.db.checkpoint.number()
		}
	case w.worked || inside < w.db.fileBytes()/2:
		return inside, nil
	}
	for start := time.Now(); inside >= least && time.Since(start) < shrinkTime; {
		before := inside
		if err := w.db.shrink(); err != nil {
			return inside, nil // for want of room, or because another process writes
		}
		var err error
		if inside, err = w.db.freeInside(); err != nil || inside >= before {
			return inside, err
		}
	}
	return inside, nil
}

// freeInside returns how many bytes of the file are not in use.
func (w *writeConn) freeInside() (int64, error) {
	pages, err := w.freePages.number()
	return pages * pageSize, err
}

// shrink cuts free pages off the file.
func (w *writeConn) shrink() error {
	err := w.marked(func() error {
		return w.incrementalVacuum.query(func([]driver.Value) bool { return true })
	})
	if err != nil {
		return err
	}
	_, err = w.checkpoint.number()
	return err
}

// fileBytes and walBytes return the sizes of the file and of its write-ahead log.
func (w *writeConn) fileBytes() int64 { return sizeOf(strings.TrimSuffix(w.walPath, "-wal")) }
func (w *writeConn) walBytes() int64  { return sizeOf(w.walPath) }

func sizeOf(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	return info.Size()
}

// makeShrinkable rewrites the file of a version before 3, once, so that it can
// give room back. One that has much in use is left as it is until it has less.
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

// incremental is the value of PRAGMA auto_vacuum for a file that gives room back
// when it is told to.
const incremental = 2
