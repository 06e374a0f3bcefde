package embedded

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"peerlink/internal/durable"
)

// schemaVersion is stored in the file as PRAGMA user_version. A file with a lower version
// is upgraded when a service opens it (see upgrades), and not opened otherwise: the service that is
// running may be an older program, which could not start again. A file with a higher version is not
// opened.
const schemaVersion = 4

// pageSize is a compromise: with larger pages, removing is faster and messages of usual
// size need no overflow pages; with smaller pages, a transaction with one message writes
// less.
const pageSize = 8192

// schema creates the tables of an empty file. Columns that hold a time hold Unix
// milliseconds.
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
	peer         TEXT NOT NULL DEFAULT '', -- the peer that has sent a received message
	epoch        INTEGER NOT NULL DEFAULT 0, -- see identity.go; 0: stored with a schema version below 3
	counted      INTEGER NOT NULL DEFAULT -1, -- its part of usage.bytes; -1: stored by a program with a schema version below 4
	PRIMARY KEY (queue, seq)
) STRICT, WITHOUT ROWID;

-- How many bytes the received messages of each peer take; see counting.go.
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

-- Has one row. owner is the node that the store belongs to, or '' until a service has opened
-- the store. closed is 1 if the last service that has opened the store has closed it.
-- counting is the version of the counting (counting.go) that table usage was made with.
CREATE TABLE store (
	owner    TEXT NOT NULL,
	closed   INTEGER NOT NULL,
	counting INTEGER NOT NULL DEFAULT 0
) STRICT;
INSERT INTO store VALUES ('', 1, ` + countingVersion + `);
`

// upgrades[i] upgrades a file from schema version i+1 to i+2. Programs with the lower schema
// version that have the file open can continue.
var upgrades = []struct {
	columns []string // to be added to table messages
	sql     string
}{
	// Messages received before the upgrade are not counted.
	{[]string{"peer TEXT NOT NULL DEFAULT ''"},
		`CREATE TABLE usage (peer TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;`},
	// Messages received before the upgrade keep their message-id.
	{[]string{"epoch INTEGER NOT NULL DEFAULT 0"},
		`CREATE TABLE store (owner TEXT NOT NULL, closed INTEGER NOT NULL) STRICT;
		INSERT INTO store VALUES ('', 1);`},
	// The rows are not written again, for which a full disk may have no space. The next service
	// corrects table usage (recount): until then, a service with the lower version may be running.
	{[]string{"counted INTEGER NOT NULL DEFAULT -1"},
		`ALTER TABLE store ADD COLUMN counting INTEGER NOT NULL DEFAULT 0;`},
}

// newStoreMessage is the log message for a store that was created.
const newStoreMessage = "there was no message store: made a new, empty one"

// fileExists reports whether there is a file for a store. It returns [errNotStore] for an empty file,
// since a store may have been lost, and [errMixed] if there is only a write-ahead log.
func fileExists(path string) (bool, error) {
	_, walErr := os.Lstat(path + "-wal") // checked before the file, which another process may be creating
	info, err := os.Stat(path)
	switch {
	case err == nil && info.Size() == 0:
		return true, fmt.Errorf("%w: %s is an empty file, as after copying to a full disk; restore the store, or remove this file to begin an empty store", errNotStore, path)
	case err == nil:
		return true, nil
	case !errors.Is(err, fs.ErrNotExist):
		return false, err
	case walErr == nil:
		return false, fmt.Errorf("%w: %s-wal is there, and %[2]s is missing; put back %[2]s from the same moment, or move %[2]s-wal away to begin an empty store", errMixed, path)
	}
	return false, nil
}

// create creates a store, with mode 0600, if there is no file.
func create(path string, log *slog.Logger) error {
	if exists, err := fileExists(path); exists || err != nil {
		return err
	}
	content, err := emptyStore()
	if err != nil {
		return err
	}
	err = durable.Create(path, content, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil // another process was faster
	}
	if err == nil {
		log.Info(newStoreMessage, "store", path)
	}
	return err
}

// emptyStore returns the content of a file for a store without messages.
func emptyStore() ([]byte, error) {
	connector, err := sqlite.NewConnector(":memory:")
	if err != nil {
		return nil, err
	}
	raw, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	c := &conn{raw: raw}
	defer c.close()
	if err := c.exec(fmt.Sprintf("PRAGMA page_size = %d; PRAGMA auto_vacuum = %d; PRAGMA user_version = %d; PRAGMA application_id = %d; %s",
		pageSize, autoVacuumIncremental, schemaVersion, int32(newToken(rand.Uint32())), schema)); err != nil {
		return nil, err
	}
	return raw.(interface{ Serialize() ([]byte, error) }).Serialize()
}

// prepareFile checks that the file is a store, and configures the connection for writing. For a
// service it upgrades the file.
func prepareFile(c *conn, service bool) error {
	version, err := fileVersion(c)
	if err != nil {
		return err
	}
	if version < schemaVersion && !service {
		return fmt.Errorf("%w: its schema version is %d, and only the service upgrades it: start it, or restart it if the older program is still running", errOlder, version)
	}
	if err := useWAL(c); err != nil {
		return err
	}
	for _, pragma := range []string{
		"synchronous = FULL", // sync at each commit: confirmed messages survive a power failure
		fmt.Sprintf("journal_size_limit = %d", walKept),
	} {
		if err := c.exec("PRAGMA " + pragma); err != nil {
			return fmt.Errorf("PRAGMA %s: %w", pragma, err)
		}
	}
	if version < schemaVersion {
		return upgrade(c)
	}
	return nil
}

// fileVersion returns the schema version of the file. It changes nothing: the file may
// belong to another program.
func fileVersion(c *conn) (int64, error) {
	_, err := c.number("SELECT count(*) FROM sqlite_schema")
	if code(err) == sqlite3.SQLITE_NOTADB {
		return 0, fmt.Errorf("%w: it is no SQLite database", errNotStore)
	} else if err != nil {
		return 0, err
	}
	version, err := c.number("PRAGMA user_version")
	switch {
	case err != nil:
		return 0, err
	case version > schemaVersion:
		return 0, fmt.Errorf("%w: its schema version is %d, this program supports versions up to %d; use the newer program",
			errNewer, version, schemaVersion)
	case version <= 0:
		return 0, fmt.Errorf("%w: it is an SQLite database of another program", errNotStore)
	}
	return version, nil
}

// useWAL turns on the write-ahead log, and tries again for up to busyTimeout: while another
// process turns it on, SQLite fails immediately instead of waiting.
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
			return fmt.Errorf("its file system does not support a write-ahead log (journal mode is %q): use a local disk", mode)
		case code(err)&0xff != sqlite3.SQLITE_BUSY || time.Now().After(deadline):
			return err
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// upgrade upgrades the tables, unless another process has done so already.
func upgrade(c *conn) error {
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	version, err := fileVersion(c)
	if err == nil && version < schemaVersion {
		err = upgradeFrom(c, version)
	}
	if err == nil {
		err = c.exec("COMMIT")
	}
	if err != nil {
		_ = c.exec("ROLLBACK")
	}
	return err
}

// upgradeFrom upgrades the tables from a schema version, in a transaction of the caller.
func upgradeFrom(c *conn, version int64) error {
	var columns, sql []string
	for _, u := range upgrades[version-1:] {
		columns, sql = append(columns, u.columns...), append(sql, u.sql)
	}
	if err := addColumns(c, columns); err != nil {
		return err
	}
	return c.exec(strings.Join(sql, "\n") + fmt.Sprintf("PRAGMA user_version = %d", schemaVersion))
}

// addColumns adds columns to table messages as ALTER TABLE does, by a change of the table's
// definition: the rows get the default. But ALTER TABLE reads all rows of a STRICT table to check
// them, which takes longer for millions of messages than a service may take to start.
func addColumns(c *conn, columns []string) error {
	const end = "PRIMARY KEY (queue, seq)" // what follows the columns
	version, err := c.number("PRAGMA schema_version")
	if err != nil {
		return err
	}
	quoted := strings.ReplaceAll(strings.Join(columns, ", "), "'", "''")
	if err := c.exec("PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = replace(sql, '" + end + "', '" + quoted + ", " + end + "')" +
		fmt.Sprintf(" WHERE name = 'messages'; PRAGMA schema_version = %d; PRAGMA writable_schema = RESET", version+1)); err != nil {
		_ = c.exec("PRAGMA writable_schema = RESET")
		return err
	}
	var names []string
	for _, column := range columns {
		name, _, _ := strings.Cut(column, " ")
		names = append(names, name)
	}
	_, err = c.number("SELECT count(*) FROM (SELECT " + strings.Join(names, ", ") + " FROM messages LIMIT 1)") // fails if they are missing
	return err
}

// isUnwritable reports whether the reason of a write error is the files or the disk, as
// opposed to a temporary lock of another process.
func isUnwritable(err error) bool {
	switch code(err) & 0xff {
	case sqlite3.SQLITE_OK:
		return errors.Is(err, errGone) || isFull(err) || isDiskFault(err)
	case sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED:
		return false
	}
	return true
}

// code returns the extended result code of an SQLite error, and 0 for other errors.
func code(err error) int {
	var e interface{ Code() int }
	if errors.As(err, &e) {
		return e.Code()
	}
	return 0
}
