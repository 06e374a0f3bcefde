package embedded

import (
	"path/filepath"
	"testing"
	"time"

	"peerlink/internal/durable"
)

// Turning on the write-ahead log waits for another process that has the file locked, also
// where SQLite itself does not wait.
func TestUseWALWaits(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	content, err := emptyStore()
	if err == nil {
		err = durable.Create(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	open := func() *conn {
		c, err := openConn(path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.close() })
		return c
	}
	other, c := open(), open()
	if err := other.exec("BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	if err := c.exec("PRAGMA busy_timeout = 0"); err != nil {
		t.Fatal(err)
	}
	unlocked := make(chan error, 1)
	time.AfterFunc(50*time.Millisecond, func() { unlocked <- other.exec("ROLLBACK") })
	if err := useWAL(c); err != nil {
		t.Errorf("while the file is locked: %v", err)
	}
	if err := <-unlocked; err != nil {
		t.Error(err)
	}
}
