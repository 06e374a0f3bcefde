package embedded

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"time"

	sqlite3 "modernc.org/sqlite/lib"
)

// errDamaged is returned for a store whose file is damaged: by [Open], and by methods that
// read messages.
var errDamaged = errors.New("embedded: message store is damaged")

// damageAdvice is the advice to the operator in errors that report damage.
const damageAdvice = "stop the service, and put back a backup (\"peerlink state restore\"), or save what can be read" +
	" with sqlite3 (docs/operations.md, \"A damaged message store\")"

// damageTime bounds the time of a check for damage.
const damageTime = 3 * time.Second

// checkDamage calls quickCheck if the last service did not close the file.
func checkDamage(c *conn) error {
	closed, err := c.number("SELECT closed FROM store")
	if err != nil || closed != 0 {
		return err
	}
	return quickCheck(context.Background(), c)
}

// quickCheck checks the file for damage, until ctx is done, and for at most damageTime. It
// returns [errDamaged] if the file is damaged, and nil if no damage was found by then.
func quickCheck(ctx context.Context, c *conn) error {
	ctx, cancel := context.WithTimeout(ctx, damageTime)
	defer cancel()
	err := runCheck(ctx, c, "quick_check")
	switch {
	case ctx.Err() != nil:
		return nil
	case errors.Is(err, errDamaged):
		return fmt.Errorf("%w; %s", err, damageAdvice)
	}
	return err
}

// runCheck looks through the file with SQLite's "quick_check" or "integrity_check", and returns
// [errDamaged] if it finds damage, or the error of ctx.
func runCheck(ctx context.Context, c *conn, pragma string) error {
	s, err := c.prepare("PRAGMA " + pragma + "(1)")
	if err != nil {
		return err
	}
	defer s.close()
	found := ""
	err = s.queryContext(ctx, func(cols []driver.Value) bool {
		found = text(cols[0])
		return false
	})
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return err
	case found != "ok":
		return fmt.Errorf("%w: %s", errDamaged, found)
	}
	return nil
}

// recordOpen records in the file itself, and not only in its write-ahead log, that a service
// has opened the store. If that fails, as on a full disk, and the service is then killed,
// the next start neither checks for damage nor detects a missing write-ahead log.
func (w *writeConn) recordOpen() error {
	err := w.commitChange(func() error { return w.exec("UPDATE store SET closed = 0") })
	if err == nil {
		w.restartWAL() // copies the log to the file, and, unlike truncateWAL, keeps the log's space, in case the disk is full
	}
	return err
}

// recordClosed records that the service has closed the store.
func (w *writeConn) recordClosed() {
	change := func() error { return w.exec("UPDATE store SET closed = 1") }
	if w.commitChange(change) != nil {
		w.restartWAL() // the log may have frames up to its end, and the disk be full
		_ = w.commitChange(change)
	}
}

// releaseWALAtClose lets SQLite remove the write-ahead log together with the last connection
// to the file, if the last service that has opened the store has closed it. It also removes
// the record of the last token then. While the disk has little space, everything stays: see
// walroom.go.
func (w *writeConn) releaseWALAtClose() {
	if w.keepWALIfScarce() {
		return
	}
	if closed, err := w.number("SELECT closed FROM store"); err == nil && closed != 0 {
		_ = w.keepWAL(false)
		_ = os.Remove(w.path() + lastTokenSuffix)
	}
}

// explain adds advice for the operator to an SQLite error that means damage or missing access.
func explain(err error) error {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB:
		if !errors.Is(err, errDamaged) && !errors.Is(err, errNotStore) {
			return fmt.Errorf("%w: %w; if the disk has reported errors (see the kernel's log), resolve these errors first, and start the service again, which checks the store; otherwise %s", errDamaged, err, damageAdvice)
		}
	}
	if isAccessError(err) {
		// SQLite does not report whether the file or its folder is the reason.
		return fmt.Errorf("%w; this user must be able to write to the file and to make files beside it: look at their owner and mode, and whether the disk is mounted read-only", err)
	}
	return err
}

// isAccessError reports whether SQLite could not open or create a file, or may not write it.
func isAccessError(err error) bool {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_PERM:
		return true
	}
	return false
}
