package embedded

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql/driver"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"strconv"

	"peerlink/internal/excerpt"
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

// ErrOwner is returned by [Open] for a store that belongs to another owner. If the store
// records that owner, the error is an [OwnerError].
var ErrOwner = errors.New("embedded: message store of another node")

// maxOwner is how many bytes of a recorded owner an error shows.
const maxOwner = 200

// OwnerError is the [ErrOwner] for a store with a recorded owner.
type OwnerError struct {
	Recorded string // owner that the store belongs to
	Owner    string // owner that it was opened for
}

func (e *OwnerError) Error() string {
	return fmt.Sprintf("%v: it belongs to %s, and this is %s", ErrOwner, excerpt.Limit(e.Recorded, maxOwner), e.Owner)
}

// Unwrap returns [ErrOwner].
func (*OwnerError) Unwrap() error { return ErrOwner }

// Adopt changes the owner of a store from one to another. A store that has the new owner already is
// not changed; for one of a third owner, Adopt returns [ErrOwner]. Adopt makes the checks of [Open] for
// a service, and fails if there is no store. The caller must ensure that no service has the store
// open. If the process is killed, the store belongs to one of the two owners, and is complete.
func Adopt(ctx context.Context, path, from, to string, log *slog.Logger) error {
	if from == "" || to == "" {
		return fmt.Errorf("%w: expected two owners", ErrOwner)
	}
	path, err := existingFile(path)
	if err != nil {
		return fmt.Errorf("message store %s: %w", path, err)
	}
	s, err := Open(path, Options{Owner: from, Service: true, Logger: log})
	if other := (*OwnerError)(nil); errors.As(err, &other) && other.Recorded == to {
		return nil // it was killed after it had done this
	}
	if err != nil {
		return err
	}
	err = s.commit(ctx, func(t *tx) error { return changeOwner(t.conn, from, to) })
	return cmp.Or(err, s.Close())
}

// changeOwner changes the owner of the store in the current transaction.
func changeOwner(c *conn, from, to string) error {
	set, err := c.prepare("UPDATE store SET owner = ? WHERE owner = ?")
	if err != nil {
		return err
	}
	defer set.close()
	n, err := set.exec(to, from)
	if err == nil && n != 1 {
		err = fmt.Errorf("%w: its owner has changed meanwhile", ErrOwner)
	}
	return err
}

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
		return &OwnerError{recorded, owner}
	}
	if !adopt {
		return nil
	}
	err = changeOwner(c, "", owner)
	switch {
	case errors.Is(err, ErrOwner): // another process was faster
		return checkOwner(c, owner, false)
	case err != nil:
		return fmt.Errorf("record the owner of the store: %w", err)
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
