package embedded

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"time"
)

// ErrDamaged is reported by [Open] for a store whose file is damaged.
var ErrDamaged = errors.New("embedded: message store is damaged")

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
		return fmt.Errorf("%w: %s; put back a backup of the whole state folder, or move the folder away to begin an empty store", ErrDamaged, found)
	}
	return nil
}

// noteOpen notes in the file itself, and not only in its write-ahead log, that a
// service has it open. Where that is not possible, as on a full disk, the next start
// does not look for damage; nothing else depends on it.
func (w *writeConn) noteOpen() {
	if w.exec("UPDATE store SET closed = 0") == nil {
		_, _ = w.truncate.number()
	}
}

// noteClosed notes that the service has closed the store.
func (w *writeConn) noteClosed() { _ = w.exec("UPDATE store SET closed = 1") }

// leaveOneFile lets the last connection that closes remove the write-ahead log if
// no service has the store open, and none has ended without closing it.
func (w *writeConn) leaveOneFile() {
	if closed, err := w.number("SELECT closed FROM store"); err == nil && closed != 0 {
		_ = w.keepWAL(false)
	}
}
