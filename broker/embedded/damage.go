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

// noteClosed notes whether the service has closed the store. Where it can not be
// noted, the next start looks through the file, or not; no more depends on it.
func noteClosed(c *conn, closed bool) {
	n := 0
	if closed {
		n = 1
	}
	_ = c.exec(fmt.Sprintf("UPDATE store SET closed = %d", n))
}
