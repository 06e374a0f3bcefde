package embedded

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"peerlink/internal/durable"
)

// Waiting is the number of messages in the file of a store, read without opening the store.
type Waiting struct {
	Messages int64 // in queues and inboxes
	SetAside int64 // dead letters
	Inexact  bool  // the write-ahead log, which may add or remove messages, was not read: the store is in use, or was not closed
}

// ReadWaiting counts the messages in the file of a store. It needs no lock, and neither
// changes nor creates a file. It returns the zero Waiting if there is no file, or
// if the file is empty.
func ReadWaiting(path string) (Waiting, error) {
	w, err := readWaiting(path)
	if err != nil {
		return Waiting{}, fmt.Errorf("message store %s: %w", path, explain(err))
	}
	return w, nil
}

func readWaiting(path string) (w Waiting, err error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), err == nil && info.Size() == 0 && info.Mode().IsRegular():
		return w, nil
	case err != nil:
		return w, err
	case !info.Mode().IsRegular():
		return w, errors.New("it is not a regular file")
	}
	if path, err = durable.Target(path); err != nil {
		return w, err
	}
	log, err := os.Stat(path + "-wal")
	w.Inexact = err == nil && log.Size() > 0
	c, err := openConnURI(path, "mode=ro&immutable=1")
	if err != nil {
		return w, err
	}
	defer c.close()
	if w.Messages, err = c.number("SELECT coalesce(sum(depth), 0) FROM queues"); err == nil {
		w.SetAside, err = c.number("SELECT count(*) FROM set_aside")
	}
	return w, err
}
