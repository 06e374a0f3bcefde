package embedded

import (
	"database/sql/driver"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// schemaV1 is the schema of version 1.
const schemaV1 = `
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
	PRIMARY KEY (queue, seq)
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
`

// The tables of later versions, as a file has them that was created with version 1. They must never be changed: such
// files exist.
const (
	schemaV2 = schemaV1 + `
ALTER TABLE messages ADD COLUMN peer TEXT NOT NULL DEFAULT '';
CREATE TABLE usage (peer TEXT PRIMARY KEY, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID;
`
	schemaV3 = schemaV2 + `
ALTER TABLE messages ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;
CREATE TABLE store (owner TEXT NOT NULL, closed INTEGER NOT NULL) STRICT;
INSERT INTO store VALUES ('', 1);
`
	schemaV4 = schemaV3 + `
ALTER TABLE messages ADD COLUMN counted INTEGER NOT NULL DEFAULT -1;
ALTER TABLE store ADD COLUMN counting INTEGER NOT NULL DEFAULT 0;
`
)

// schemas are the schemas of all versions, beginning with version 1.
var schemas = []string{schemaV1, schemaV2, schemaV3, schemaV4}

// A store of each version passes Check, is opened by the present program, upgraded if it is older, without losing messages, and then has
// the same schema as a new one.
func TestUpgrade(t *testing.T) {
	if len(schemas) != schemaVersion {
		t.Fatalf("the present schema version is %d: expected a schema of each version in this test, got %d", schemaVersion, len(schemas))
	}
	created := columnsOf(t, openTest(t, Options{}).path)
	for i, schema := range schemas {
		t.Run(fmt.Sprintf("version %d", i+1), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "messages.db")
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			const insert = "INSERT INTO messages (queue, seq, arrived, type, content_type, routing_key, headers, body) VALUES "
			execFile(t, path, fmt.Sprintf("%s PRAGMA user_version = %d;", schema, i+1)+`
				INSERT INTO queues VALUES (1, 'accounts_in', 3, 2), (2, 'peer.x.0', 2, 1);
				INSERT INTO bindings VALUES ('x', 'to_creditors', '#', 0, 2);
				`+insert+`(1, 1, 0, 'A', 'text/plain', 'k', 'n=1', CAST('one' AS BLOB)), (1, 2, 0, 'A', 'text/plain', 'k', '', CAST('two' AS BLOB)), (2, 1, 0, 'B', '', '', '', CAST('three' AS BLOB))`)
			if err := Check(path, "me"); err != nil {
				t.Errorf("Check: %v, expected that a service can open it", err)
			}
			checkUpgraded(t, path)
			if upgraded := columnsOf(t, path); upgraded != created {
				t.Errorf("the old store has become\n%sand a new one is\n%s", upgraded, created)
			}
		})
	}
}

// checkUpgraded opens the store of TestUpgrade, and checks its messages.
func checkUpgraded(t *testing.T, path string) {
	t.Helper()
	other := openFile(t, path, Options{Service: true})
	<-other.counted
	s := openFile(t, path, Options{})
	wantQueued(t, other, "peer.x.0", "three")
	publishFrom(t, s, "a", 1, 10)
	checkUsage(t, s, "a")
	sub := subscribe(t, s, "accounts_in")
	bodies, seqs := take(t, sub, 3)
	if bodies[0] != "one!" || bodies[1] != "two!" {
		t.Errorf("got %q", bodies)
	}
	ack(t, sub, seqs...)
	wantQueued(t, s, "accounts_in")
	checkUsage(t, s, "a")
}

// columnsOf returns the columns of all tables of a store.
func columnsOf(t *testing.T, path string) (columns string) {
	t.Helper()
	c, err := openConn(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	for _, table := range []string{"queues", "bindings", "messages", "set_aside", "usage", "store"} {
		s, err := c.prepare("SELECT group_concat(name || ' ' || type || ' ' || \"notnull\" || ' ' || coalesce(dflt_value, '') || ' ' || pk) FROM pragma_table_info('" + table + "')")
		if err != nil {
			t.Fatal(err)
		}
		if err := s.query(func(cols []driver.Value) bool { columns += table + ": " + text(cols[0]) + "\n"; return false }); err != nil {
			t.Fatal(err)
		}
		if err := s.close(); err != nil {
			t.Fatal(err)
		}
	}
	return columns
}
