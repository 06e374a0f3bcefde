package embedded

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// ErrDamaged is reported for a store whose file is damaged: by [Open], and by what
// reads messages.
var ErrDamaged = errors.New("embedded: message store is damaged")

// damageAdvice is what to do about damage.
const damageAdvice = "stop the service, and put back a backup of the whole state folder, or save what can be read" +
	" with sqlite3 (docs/operations.md, \"A damaged message store\")"

// damageTime is how long a store is looked through for damage.
const damageTime = 3 * time.Second

// checkDamage looks through the file if the service that had it open last has not
// closed it, for a limited time, and reports [ErrDamaged].
func checkDamage(c *conn) error {
	closed, err := c.number("SELECT closed FROM store")
	if err != nil || closed != 0 {
		return err
	}
	s, err := c.prepare("PRAGMA quick_check(1)")
	if err != nil {
		return err
	}
	defer s.close()
	ctx, cancel := context.WithTimeout(context.Background(), damageTime)
	defer cancel()
	found := ""
	err = s.queryContext(ctx, func(cols []driver.Value) bool {
		found = text(cols[0])
		return false
	})
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case found != "ok":
		return fmt.Errorf("%w: %s; %s", ErrDamaged, found, damageAdvice)
	}
	return nil
}

// noteOpen notes in the file itself, and not only in its write-ahead log, that a
// service has it open. Where that is not possible, as on a full disk, the next start
// does not look for damage; nothing else depends on it.
func (w *writeConn) noteOpen() {
	if w.marked(func() error { return w.exec("UPDATE store SET closed = 0") }) == nil {
		_, _ = w.restart.number() // the log keeps its room, in case that the disk is full
	}
}

// noteClosed notes that the service has closed the store.
func (w *writeConn) noteClosed() {
	_ = w.marked(func() error { return w.exec("UPDATE store SET closed = 1") })
}

// leaveOneFile lets the last connection that closes remove the write-ahead log if
// no service has the store open, and none has ended without closing it.
func (w *writeConn) leaveOneFile() {
	if closed, err := w.number("SELECT closed FROM store"); err == nil && closed != 0 {
		_ = w.keepWAL(false)
	}
}

// explain adds what it means, and what to do, to an error of SQLite.
func explain(err error) error {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		if !errors.Is(err, ErrDamaged) && !errors.Is(err, ErrNotStore) {
			return fmt.Errorf("%w: %w; %s", ErrDamaged, err, damageAdvice)
		}
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		// SQLite does not say whether the file or its folder is the reason.
		return fmt.Errorf("%w; this user must be able to write to the file and to make files beside it: look at their owner and mode, and whether the disk is mounted read-only", err)
	}
	return err
}
