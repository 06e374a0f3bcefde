package embedded

import (
	"cmp"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"peerlink/broker"
)

// Inspection is what [Inspect] finds in the file of a store.
type Inspection struct {
	Queues     []QueueStats                  // sorted by name
	Bindings   map[string]broker.PeerBinding // by peer; without Prefix
	Unconsumed map[string]int64              // bytes of the messages from each peer that no application has consumed
}

// Inspect reads the file of a store, without opening the store: it takes no lock that others wait for,
// and neither changes nor creates a file. A service may be using the store. Inspect returns
// [ErrOwner] if the store belongs to another owner, an error if the store could not be opened
// for another reason that the files show, and one that wraps [fs.ErrNotExist] if there is no store.
func Inspect(path, owner string) (*Inspection, error) {
	i, err := inspect(path, owner)
	if err != nil {
		return nil, fmt.Errorf("message store %s: %w", path, explain(err))
	}
	return i, nil
}

// Check reports why a service could not open the file of a store, as far as the files show; it returns
// nil if there is no store. Like [Inspect], it takes no lock that others wait for, and neither
// changes nor creates a file. A service may be using the store.
func Check(path, owner string) error {
	if exists, err := fileExists(path); !exists || err != nil {
		return err
	}
	c, _, err := openChecked(path, owner)
	if err != nil {
		return fmt.Errorf("message store %s: %w", path, explain(err))
	}
	c.close()
	return nil
}

func inspect(path, owner string) (*Inspection, error) {
	c, version, err := openChecked(path, owner)
	if err != nil {
		return nil, err
	}
	defer c.close()
	if version < schemaVersion {
		return nil, fmt.Errorf("its schema version is %d: the service has not been started since the program was upgraded", version)
	}
	i := &Inspection{Bindings: make(map[string]broker.PeerBinding), Unconsumed: make(map[string]int64)}
	return i, cmp.Or(i.readQueues(c), i.readBindings(c), i.readUsage(c))
}

// openChecked checks the files of a store, and opens a connection that changes nothing. It returns the
// schema version, which is at most schemaVersion.
func openChecked(path, owner string) (c *conn, version int64, err error) {
	if path, err = existingFile(path); err != nil {
		return nil, 0, err
	}
	if c, err = openForReading(path); err != nil {
		return nil, 0, err
	}
	if version, err = fileVersion(c); err == nil && version >= ownerVersion {
		err = checkOwner(c, owner, false)
	}
	if err == nil {
		err = checkPair(path)
	}
	if err != nil {
		c.close()
		return nil, 0, err
	}
	return c, version, nil
}

// openForReading opens a connection that changes nothing. If the store is in use, or was not closed,
// the connection reads its write-ahead log, too.
func openForReading(path string) (*conn, error) {
	if log, err := os.Stat(path + "-wal"); err != nil || log.Size() == 0 {
		return openConnURI(path, "mode=ro&immutable=1")
	}
	if _, err := os.Stat(path + "-shm"); errors.Is(err, fs.ErrNotExist) {
		return openConnURI(path, "mode=ro&immutable=1") // the log can not be read without changing a file
	}
	return openConnURI(path, "mode=ro&readonly_shm=1")
}

func (i *Inspection) readQueues(c *conn) error {
	return c.rows(selectQueueStats, func(cols []driver.Value) { i.Queues = append(i.Queues, queueStatsOf(cols)) })
}

func (i *Inspection) readBindings(c *conn) error {
	return c.rows("SELECT peer, exchange, binding_key, fanout, name FROM bindings JOIN queues ON queue = queues.id", func(cols []driver.Value) {
		peer := text(cols[0])
		i.Bindings[peer] = broker.PeerBinding{
			PeerID: peer, Exchange: text(cols[1]), BindingKey: text(cols[2]), Fanout: number(cols[3]) != 0, Queues: []string{text(cols[4])},
		}
	})
}

func (i *Inspection) readUsage(c *conn) error {
	return c.rows("SELECT peer, bytes FROM usage", func(cols []driver.Value) { i.Unconsumed[text(cols[0])] = max(number(cols[1]), 0) })
}

// rows calls f for each row that SQL returns.
func (c *conn) rows(sql string, f func(cols []driver.Value)) error {
	s, err := c.prepare(sql)
	if err != nil {
		return err
	}
	defer s.close()
	return s.query(func(cols []driver.Value) bool {
		f(cols)
		return true
	})
}

// FreeBytes returns how many bytes users other than root can store in the file system of a folder.
func FreeBytes(dir string) (int64, error) { return freeBytes(filepath.Clean(dir)) }
