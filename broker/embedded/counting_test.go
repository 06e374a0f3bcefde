package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// insertV3 returns SQL that inserts a message as a program with schema version 3 does.
func insertV3(queue, seq int, peer, headers string, body int) string {
	return fmt.Sprintf("INSERT INTO messages (queue, seq, arrived, type, content_type, routing_key, headers, body, peer, epoch)"+
		" VALUES (%d, %d, 0, 'Tü', 'text/plain', 'k', '%s', zeroblob(%d), '%s', 7);", queue, seq, headers, body, peer)
}

// fileV3 creates a store of schema version 3 with n messages in accounts_in, by turns of peers a
// and b, and in to.x. What is counted of them is wrong.
func fileV3(t *testing.T, n int) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "messages.db")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	sql := schemaV3 + "PRAGMA user_version = 3;" + fmt.Sprintf("INSERT INTO queues VALUES (1, 'accounts_in', %d, %d), (2, 'to.x', %[1]d, %[2]d);", n+1, n) +
		"INSERT INTO usage VALUES ('a', 17), ('b', 1000000000), ('gone', 5);"
	for seq := 1; seq <= n; seq++ {
		sql += insertV3(1, seq, string(rune('a'+seq%2)), []string{"", "n=1", `n="ä"`}[seq%3], seq*157%9000) + insertV3(2, seq, "", "", 10)
	}
	execFile(t, path, sql)
	return path
}

// execFile executes SQL in a file.
func execFile(t *testing.T, path, sql string) {
	t.Helper()
	c, err := openConn(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if err := c.exec("BEGIN; " + sql + "; COMMIT"); err != nil {
		t.Fatal(err)
	}
}

// openCounted opens a store as a service, and waits until its messages are counted.
func openCounted(t *testing.T, path string) *Store {
	t.Helper()
	s := openFile(t, path, Options{Service: true})
	<-s.counted
	return s
}

// drain removes n messages of accounts_in.
func drain(t *testing.T, s *Store, n int) {
	t.Helper()
	sub := subscribe(t, s, "accounts_in")
	_, seqs := take(t, sub, n)
	ack(t, sub, seqs...)
	s.flush()
}

// wantUsage checks that the sizes of all peers' messages are correct, and all of them 0 after
// the n messages were removed.
func wantUsage(t *testing.T, s *Store, n int) {
	t.Helper()
	checkUsage(t, s, "a", "b", "gone")
	drain(t, s, n)
	if total := s.quotas.total(); total != 0 {
		t.Errorf("without messages, %d bytes are counted: %v", total, s.quotas.all())
	}
}

// After the upgrade of a store in which messages were counted by other rules, the count of
// each peer is exact, and 0 when its messages are removed: no peer is blocked for ever, and
// none exceeds its quota.
func TestUsageAfterUpgrade(t *testing.T) {
	t.Parallel()
	const n = 400
	s := openCounted(t, fileV3(t, n))
	if s.quotas.usageOf("a") < n/2*rowOverhead || s.quotas.usageOf("a") > 2<<20 {
		t.Errorf("%d bytes are counted", s.quotas.usageOf("a"))
	}
	publishFrom(t, s, "a", 20, 3000)
	s = reopen(t, s)
	wantUsage(t, s, n+20)
}

// A command does not upgrade the store of an older service, which could not start again then, and
// goes on to store messages. The count is exact when a service of this version has opened the store,
// and then is not made again.
func TestOnlyServiceUpgrades(t *testing.T) {
	t.Parallel()
	path := fileV3(t, 10)
	if _, err := Open(path, Options{}); !errors.Is(err, errOlder) || !strings.Contains(err.Error(), "only the service upgrades it") {
		t.Fatalf("opened by a command: %v", err)
	}
	execFile(t, path, insertV3(1, 11, "a", "", 6000)+"UPDATE usage SET bytes = bytes + 1; UPDATE queues SET next_seq = 12, depth = 11 WHERE id = 1")
	log := make(reports, 10)
	s := openFile(t, path, Options{Service: true, Logger: slog.New(log)})
	log.want(t, "INFO counted how much each peer's messages take")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openFile(t, path, Options{Service: true, Logger: slog.New(log)})
	<-s.counted
	if len(log) > 0 {
		t.Errorf("also logged: %s", <-log)
	}
	wantUsage(t, s, 11)
}

// Messages that are stored and removed while the service counts, in any part of the store, are
// counted once: also if the sum was too low before, and would have become negative.
func TestRecountWhileUsed(t *testing.T) {
	t.Parallel()
	const n, more = 300, 20
	path := fileV3(t, n)
	c, err := openConn(path)
	if err == nil {
		err = upgrade(c)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
	s := openFile(t, path, Options{})
	r := newRecounting(s)
	if err := r.read(); err != nil {
		t.Fatal(err)
	}
	drain(t, s, n/2)
	publishFrom(t, s, "a", more, 3000)
	publishFrom(t, s, "new", more, 30)
	if s.quotas.usageOf("a") < 0 {
		t.Errorf("%d bytes are counted", s.quotas.usageOf("a"))
	}
	if err := r.write(); err != nil {
		t.Fatal(err)
	}
	checkUsage(t, s, "new")
	wantUsage(t, s, n-n/2+2*more)
}

// A service that is stopped while it counts ends at once; nothing is counted, and the next start
// counts.
func TestRecountIsInterrupted(t *testing.T) {
	t.Parallel()
	path := fileV3(t, 10)
	s := openFile(t, path, Options{Service: true})
	<-s.counted
	s.commit(t.Context(), func(t *tx) error { return t.exec("UPDATE store SET counting = 0; UPDATE usage SET bytes = 3") })
	s.end()
	if err := s.recount(); !errors.Is(err, context.Canceled) {
		t.Errorf("recount of a store that is being closed: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	wantUsage(t, openCounted(t, path), 10)
}

// What is subtracted at the removal of a message is what was counted when it was stored, also if
// another version of the program counts differently.
func TestCountedIsStored(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	publishFrom(t, s, "a", 3, 2000)
	path := s.path
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	execFile(t, path, "UPDATE messages SET counted = counted + 1000; UPDATE usage SET bytes = bytes + 3000")
	wantUsage(t, openCounted(t, path), 3)
}

// Messages are counted in pages, so that a large store takes no more memory than a small one: none
// is left out at the limits of pages.
func TestRecountPages(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	path := s.path
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	const n = 2*recountPage + 1
	execFile(t, path, fmt.Sprintf("INSERT INTO queues VALUES (1, 'accounts_in', %d, %d); UPDATE store SET counting = 0;"+
		" WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i < %[2]d)"+
		" INSERT INTO messages SELECT 1, i, 0, '', '', '', '', zeroblob(i %% 10), 'a', 7, -1 FROM n", n+1, n))
	s = openCounted(t, path)
	want := int64(0)
	for i := 1; i <= n; i++ {
		want += int64(rowOverhead + i%10)
	}
	if got := s.quotas.usageOf("a"); got != want {
		t.Errorf("%d bytes are counted, expected %d", got, want)
	}
}
