package embedded

import (
	"crypto/rand"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// The IDs of messages: the number of a message in its queue does not name it for ever: where an older
// state of the store is restored, or the store is lost and begun anew, numbers
// are given again, to other messages. So each time a store is opened, it draws a
// random number, its epoch, which is kept with each message that it stores from
// then on. Epoch and number together name one message of a queue. Messages keep
// both, so an application that gets a message again, after a restart too, recognizes it.

// newEpoch returns a random number that is not 0.
func newEpoch() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return int64(binary.BigEndian.Uint64(b[:])>>1) | 1
}

// messageID returns the ID of a message. One that was stored before there were
// epochs keeps the ID that it had.
func messageID(epoch int64, seq uint64) string {
	if epoch == 0 {
		return strconv.FormatUint(seq, 10)
	}
	return strconv.FormatUint(uint64(epoch), 36) + "-" + strconv.FormatUint(seq, 10)
}

// ErrOwner is reported by [Open] for a store that belongs to somebody else.
var ErrOwner = errors.New("embedded: message store of another node")

// checkOwner reports [ErrOwner] if the store belongs to somebody else. A store
// that belongs to nobody, since it is new or a version before 3 has made it, is
// taken over if adopt is true.
func checkOwner(c *conn, owner string, adopt bool) error {
	if owner == "" {
		return nil
	}
	recorded, err := storedOwner(c)
	if err != nil || recorded == owner {
		return err
	}
	if recorded != "" {
		return fmt.Errorf("%w: it belongs to %s, and this is %s", ErrOwner, recorded, owner)
	}
	if !adopt {
		return nil
	}
	set, err := c.prepare("UPDATE store SET owner = ? WHERE owner = ''")
	if err != nil {
		return err
	}
	defer set.close()
	switch n, err := set.exec(owner); {
	case err != nil:
		return fmt.Errorf("note whose store it is: %w", err)
	case n == 0: // another process was faster
		return checkOwner(c, owner, false)
	}
	return nil
}

func storedOwner(c *conn) (string, error) {
	s, err := c.prepare("SELECT owner FROM store")
	if err != nil {
		return "", err
	}
	defer s.close()
	var owner string
	err = s.query(func(cols []driver.Value) bool {
		owner = text(cols[0])
		return false
	})
	return owner, err
}
