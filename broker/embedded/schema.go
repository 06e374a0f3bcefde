package embedded

import (
	"database/sql/driver"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"
)

// schemaVersion is kept in the file as PRAGMA user_version. A file with a
// lower one is brought up to date when it is opened (see upgrades), a file with a
// higher one is refused.
const schemaVersion = 3

// pageSize is a compromise: with larger pages removing is faster, and messages
// of usual size have no overflow pages; with smaller ones a transaction with
// one message writes less.
const pageSize = 8192

// schema is the file. Columns that hold a time hold Unix milliseconds.
const schema = `
-- depth is how many messages of the queue are in table messages.
CREATE TABLE queues (
	id       INTEGER PRIMARY KEY,
	name     TEXT NOT NULL UNIQUE,
	next_seq INTEGER NOT NULL,
	depth    INTEGER NOT NULL
) STRICT;

-- Where the messages for a peer go. A fanout binding has no key.
CREATE TABLE bindings (
	peer        TEXT PRIMARY KEY,
	exchange    TEXT NOT NULL,
	binding_key TEXT NOT NULL,
	fanout      INTEGER NOT NULL,
	queue       INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- headers has a line for each application header: name=value (headers.go).
CREATE TABLE messages (
	queue        INTEGER NOT NULL,
	seq          INTEGER NOT NULL,
	arrived      INTEGER NOT NULL,
	type         TEXT NOT NULL,
	content_type TEXT NOT NULL,
	routing_key  TEXT NOT NULL,
	headers      TEXT NOT NULL,
	body         BLOB,
	peer         TEXT NOT NULL DEFAULT '', -- who has sent a received message
	epoch        INTEGER NOT NULL DEFAULT 0, -- see identity.go; 0: stored by a version before 3
	PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;

-- How many bytes the received messages of each peer take.
CREATE TABLE usage (
	peer  TEXT PRIMARY KEY,
	bytes INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

-- Messages that can not be sent, moved here from messages.
CREATE TABLE set_aside (
	queue        INTEGER NOT NULL,
	seq          INTEGER NOT NULL,
	arrived      INTEGER NOT NULL,
	type         TEXT NOT NULL,
	content_type TEXT NOT NULL,
	routing_key  TEXT NOT NULL,
	headers      TEXT NOT NULL,
	body         BLOB,
	at           INTEGER NOT NULL,
	reason       TEXT NOT NULL,
	PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;
` + storeTable

// storeTable has one row.
const storeTable = `
-- What the store knows of itself. owner is '' until a service has opened it.
-- closed is 1 if the service that had it open last has closed it.
CREATE TABLE store (
	owner  TEXT NOT NULL,
	closed INTEGER NOT NULL
) STRICT;
INSERT INTO store VALUES ('', 1);
`

// upgrades bring a file from the version that is the index, plus one, to the
// next. A program of the old version that has it open can go on.
var upgrades = []string{
	// Messages received before are not counted.
	`ALTER TABLE messages ADD COLUMN peer TEXT NOT NULL DEFAULT '';
	CREATE TABLE usage (peer TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;`,
	// Messages received before keep the message-id they had.
	`ALTER TABLE messages ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;` + storeTable,
}

// create makes an empty file for the owner only, if there is no file.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	if runtime.GOOS == "windows" {
		return nil // directories can not be synced there
	}
	// SQLite syncs the file. That the directory knows it is up to us.
	dir, err := os.Open(filepath.Dir(path))
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

// prepareFile checks that the file is a store of this version, or makes it
// one if it is empty, and sets up the connection for writing.
func prepareFile(c *conn) error {
	version, err := fileVersion(c)
	if err != nil {
		return err
	}
	if version == 0 {
		if err := c.exec(fmt.Sprintf("PRAGMA page_size = %d; PRAGMA auto_vacuum = %d", pageSize, incremental)); err != nil {
			return err
		}
	}
	if err := useWAL(c); err != nil {
		return err
	}
	for _, pragma := range []string{
		"synchronous = FULL", // each commit is synced: what is confirmed survives a power cut
		fmt.Sprintf("journal_size_limit = %d", walKept),
	} {
		if err := c.exec("PRAGMA " + pragma); err != nil {
			return fmt.Errorf("PRAGMA %s: %w", pragma, err)
		}
	}
	if version < schemaVersion {
		return makeTables(c)
	}
	return nil
}

// fileVersion returns the schema version of the file, 0 if it is empty. It
// changes nothing: the file may be someone else's.
func fileVersion(c *conn) (int64, error) {
	tables, err := c.number("SELECT count(*) FROM sqlite_schema")
	if code(err) == sqlite3.SQLITE_NOTADB {
		return 0, fmt.Errorf("%w, not even an SQLite database", ErrNotStore)
	} else if err != nil {
		return 0, err
	}
	version, err := c.number("PRAGMA user_version")
	switch {
	case err != nil:
		return 0, err
	case version > schemaVersion:
		return 0, fmt.Errorf("%w: it has version %d, this program knows up to %d; use the newer program",
			ErrNewer, version, schemaVersion)
	case version <= 0 && tables > 0:
		return 0, fmt.Errorf("%w, but an SQLite database of another program", ErrNotStore)
	}
	return version, nil
}

// useWAL turns on the write-ahead log. While another process does the same,
// SQLite fails at once instead of waiting.
func useWAL(c *conn) error {
	s, err := c.prepare("PRAGMA journal_mode = WAL")
	if err != nil {
		return err
	}
	defer s.close()
	deadline := time.Now().Add(busyTimeout * time.Millisecond)
	for {
		var mode string
		err := s.query(func(cols []driver.Value) bool {
			mode = text(cols[0])
			return false
		})
		switch {
		case err == nil && mode != "wal":
			return fmt.Errorf("its file system has no write-ahead log (journal mode is %q): use a local disk", mode)
		case code(err)&0xff != sqlite3.SQLITE_BUSY || time.Now().After(deadline):
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// makeTables makes the tables, or brings them up to date, unless another process
// was faster.
func makeTables(c *conn) error {
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	version, err := fileVersion(c)
	if err == nil && version < schemaVersion {
		change := schema
		if version > 0 {
			change = strings.Join(upgrades[version-1:], "\n")
		}
		err = c.exec(change + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
	}
	if err == nil {
		err = c.exec("COMMIT")
	}
	if err != nil {
		_ = c.exec("ROLLBACK")
	}
	return err
}

// isFull reports whether an error means that there is no room for what was to be
// written. SQLite has several codes for it, since not only the file grows.
func isFull(err error) bool {
	if errors.Is(err, ErrFull) {
		return true
	}
	switch c := code(err); c {
	case sqlite3.SQLITE_IOERR_WRITE, sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_TRUNCATE,
		sqlite3.SQLITE_IOERR_SHMSIZE, sqlite3.SQLITE_IOERR_SHMMAP, sqlite3.SQLITE_IOERR_SHMOPEN:
		return true
	default:
		return c&0xff == sqlite3.SQLITE_FULL
	}
}

// code returns the result code of an SQLite error, 0 for others.
func code(err error) int {
	var e *sqlite.Error
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}
