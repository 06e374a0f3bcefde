package embedded

import (
	"database/sql/driver"
	"fmt"
	"os"
	"strconv"

	"peerlink/internal/durable"
)

// AsideID identifies a dead letter in a store.
type AsideID struct {
	Queue string
	ID    string // see [Store.List]
	Type  string // of the message
}

// ReadAsideIDs reads the IDs of up to limit dead letters, the oldest of each queue first, from the file
// of a store. It neither changes nor creates a file, and does not wait for a lock of another
// process for longer than a read of the store does. The result is empty if there is no file.
func ReadAsideIDs(path string, limit int) ([]AsideID, error) {
	ids, err := readAsideIDs(path, limit)
	if err != nil {
		return nil, fmt.Errorf("message store %s: %w", path, explain(err))
	}
	return ids, nil
}

func readAsideIDs(path string, limit int) (ids []AsideID, err error) {
	if info, err := os.Stat(path); err != nil || info.Size() == 0 || !info.Mode().IsRegular() {
		return nil, nil
	}
	if path, err = durable.Target(path); err != nil {
		return nil, err
	}
	query := "mode=ro&immutable=1"
	if log, err := os.Stat(path + "-wal"); err == nil && log.Size() > 0 {
		query = "mode=ro&readonly_shm=1" // the store is in use, and its log has messages too
	}
	c, err := openConnURI(path, query)
	if err != nil {
		return nil, err
	}
	defer c.close()
	s, err := c.prepare("SELECT name, seq, type FROM set_aside JOIN queues ON queue = queues.id ORDER BY name, seq LIMIT ?")
	if err != nil {
		return nil, err
	}
	defer s.close()
	err = s.query(func(cols []driver.Value) bool {
		ids = append(ids, AsideID{text(cols[0]), strconv.FormatInt(number(cols[1]), 10), text(cols[2])})
		return true
	}, int64(limit))
	return ids, err
}
