package embedded

import (
	"crypto/rand"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
)

// Message IDs. The sequence number of a message does not identify it for ever: after a
// restore of an older state of the store, or after the store was lost, the same numbers
// are assigned to other messages. So each time a store is opened, it is assigned a
// random number, its epoch, which is stored with each message that arrives until the store is
// closed. Epoch and sequence number together identify one message of a queue. A message keeps
// both, so that an application recognizes a message that is delivered again, also after a
// restart.

// newEpoch returns a random number that is not 0.
func newEpoch() int64 {
	var b [8]byte
	_, _ = rand.Read(b[:]) // never fails
	return int64(binary.BigEndian.Uint64(b[:])>>1) | 1
}

// messageID returns the ID of a message. A message that was stored before there were
// epochs keeps its ID, the sequence number.
func messageID(epoch int64, seq uint64) string {
	if epoch == 0 {
		return strconv.FormatUint(seq, 10)
	}
	return strconv.FormatUint(uint64(epoch), 36) + "-" + strconv.FormatUint(seq, 10)
}

// ErrOwner is returned by [Open] for a store that belongs to another owner.
var ErrOwner = errors.New("embedded: message store of another node")

// checkOwner returns [ErrOwner] if the store belongs to another owner. If adopt is true, it
// assigns a store without an owner, which is new or was created with a schema version below 3, to
// owner.
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
		return fmt.Errorf("record the owner of the store: %w", err)
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
