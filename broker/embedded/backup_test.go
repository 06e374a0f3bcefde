package embedded

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
)

// openOwned opens a store of the owner "me", as its service.
func openOwned(t *testing.T, path string) *Store {
	t.Helper()
	return openFile(t, path, Options{Service: true, Owner: "me"})
}

// fileNames returns the names of the files in a folder.
func fileNames(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// makeBackup makes a backup of a store of "me" in a new folder.
func makeBackup(t *testing.T, path string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "backup")
	if _, err := Backup(testContext(t), path, to, CopyOptions{Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	return to
}

// A backup that is made while messages are received as fast as possible does not stop that, and contains
// every message that was stored before it began, once and in order. It is a single file that only its
// owner can read. Restored in another folder, its messages have the IDs that they had, and what arrives
// later gets IDs that no message of the first store has.
func TestBackupUnderLoad(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(50)...)
	publishBodies(t, s, "creditors_in", "an older one")
	f := startFlood(t, s)
	moreThan := func(n uint64) uint64 {
		t.Helper()
		for deadline := time.Now().Add(30 * time.Second); f.confirmed.Load() <= n; time.Sleep(time.Millisecond) {
			if time.Now().After(deadline) || f.err.Load() != nil {
				t.Fatalf("%d messages are stored, want more than %d: %v", f.confirmed.Load(), n, f.err.Load())
			}
		}
		return f.confirmed.Load()
	}
	before := moreThan(500)
	var during uint64 // stored when the copy was complete
	to := filepath.Join(t.TempDir(), "backup")
	content, err := Backup(testContext(t), s.path, to, CopyOptions{Owner: "me", Progress: func(done, total int64) {
		if done == total {
			during = f.confirmed.Load()
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	moreThan(during)
	stored := f.stop()
	putBodies(t, s, "q", "later")
	publishBodies(t, s, "creditors_in", "later")
	if content.Messages < int64(before)+51 || content.Messages > int64(stored)+51 || content.SetAside != 0 || time.Since(content.Newest) > time.Minute {
		t.Errorf("the backup contains %+v, with %d messages before and %d after", content, before, stored)
	}
	if names := fileNames(t, filepath.Dir(to)); len(names) != 1 {
		t.Errorf("the folder of the backup contains %q", names)
	}
	if info, err := os.Stat(to); err != nil || runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
		t.Errorf("the backup has mode %v, %v", info.Mode(), err)
	}

	other := filepath.Join(t.TempDir(), "messages.db")
	r, err := Restore(testContext(t), other, to, CopyOptions{Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if r.Content != content || r.KeptIn != "" || r.Replaced != nil {
		t.Errorf("restored is %+v, want %+v", r, content)
	}
	restored := openOwned(t, other)
	checkStored(t, restored, int(before), stored)
	wantQueued(t, restored, "q", numbers(50)...)
	putBodies(t, restored, "q", "another")
	ids := func(s *Store) map[string]string {
		found := make(map[string]string)
		for _, queue := range []string{"q", "creditors_in"} {
			messages, err := s.Peek(testContext(t), queue, 100)
			if err != nil {
				t.Fatal(err)
			}
			for _, m := range messages {
				found[queue+" "+m.ID] = string(m.Body)
			}
		}
		return found
	}
	publishBodies(t, restored, "creditors_in", "another")
	all, after := ids(s), ids(restored)
	for id, body := range after {
		if first, ok := all[id]; ok != (body != "another") || ok && first != body {
			t.Errorf("message %s is %q in the first store and %q in the restored one", id, first, body)
		}
	}
	if len(after) != 53 {
		t.Errorf("%d messages have IDs, want 53", len(after))
	}
}

// A backup of a store that no service has open contains what is in its write-ahead log after a kill, and
// leaves the store as it was: after that, it is opened as before.
func TestBackupWithoutService(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(10)...)
	path := killed(t, s)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	names := fileNames(t, filepath.Dir(s.path))
	for _, from := range []string{path, s.path} {
		to := filepath.Join(t.TempDir(), "messages.db")
		if _, err := Restore(testContext(t), to, makeBackup(t, from), CopyOptions{Owner: "me"}); err != nil {
			t.Fatal(err)
		}
		wantQueued(t, openOwned(t, to), "q", numbers(10)...)
		if after := fileNames(t, filepath.Dir(s.path)); !slices.Equal(after, names) {
			t.Errorf("there were files %q before, and %q after", names, after)
		}
		wantQueued(t, openOwned(t, from), "q", numbers(10)...)
	}
}

// A store of an older schema version is copied and restored without being upgraded, so that the older program
// can use it.
func TestBackupOfOlderVersion(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c, err := openConnURI(s.path, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.exec(fmt.Sprintf("PRAGMA user_version = %d", ownerVersion)), c.close()); err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "messages.db")
	if _, err := Restore(testContext(t), to, makeBackup(t, s.path), CopyOptions{Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{s.path, to} {
		c, err := openConnURI(path, "")
		if err != nil {
			t.Fatal(err)
		}
		if n, err := c.number("PRAGMA user_version"); err != nil || n != ownerVersion {
			t.Errorf("%s has version %d, %v", path, n, err)
		}
		if err := c.close(); err != nil {
			t.Fatal(err)
		}
	}
}

// What can be no good backup is reported, and no file is made: also no temporary one. An existing file
// stays, unless it is to be replaced and the new backup is complete.
func TestBackupRefused(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	large := strings.Repeat("x", 100_000)
	putBodies(t, s, "q", slices.Repeat([]string{large}, 60)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damaged := filepath.Join(t.TempDir(), "messages.db")
	data, err := os.ReadFile(s.path)
	if err != nil {
		t.Fatal(err)
	}
	clear(data[len(data)/2/pageSize*pageSize:][:pageSize])
	if err := os.WriteFile(damaged, data, 0o600); err != nil {
		t.Fatal(err)
	}
	nobody := openTest(t, Options{})
	if err := nobody.Close(); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	old := filepath.Join(dir, "old")
	copyFile(t, makeBackup(t, s.path), old)
	before, err := os.ReadFile(old)
	if err != nil {
		t.Fatal(err)
	}
	cancelled, cancel := context.WithCancel(testContext(t))
	for _, tt := range []struct {
		name, from, to string
		ctx            context.Context
		o              CopyOptions
		err            error
		text           string
	}{
		{name: "no store", from: filepath.Join(dir, "none"), err: fs.ErrNotExist},
		{name: "a folder", from: dir, err: errNotStore},
		{name: "another owner", o: CopyOptions{Owner: "you"}, err: ErrOwner},
		{name: "no owner", from: nobody.path, err: ErrOwner},
		{name: "damaged", from: damaged, err: errDamaged},
		{name: "an existing file", to: old, text: "exists already"},
		{name: "damaged, over an existing file", from: damaged, to: old, o: CopyOptions{Replace: true}, err: errDamaged},
		{name: "interrupted, over an existing file", to: old, ctx: cancelled, o: CopyOptions{Replace: true, Progress: func(int64, int64) { cancel() }}, err: context.Canceled},
		{name: "over the store", to: s.path, o: CopyOptions{Replace: true}, text: "file of the message store itself"},
		{name: "in place of its log", to: s.path + "-wal", text: "file of the message store itself"},
		{name: "a missing folder", to: filepath.Join(dir, "none", "backup"), err: fs.ErrNotExist},
	} {
		if tt.from == "" {
			tt.from = s.path
		}
		if tt.to == "" {
			tt.to = filepath.Join(dir, "new")
		}
		if tt.o.Owner == "" {
			tt.o.Owner = "me"
		}
		if tt.ctx == nil {
			tt.ctx = testContext(t)
		}
		_, err := Backup(tt.ctx, tt.from, tt.to, tt.o)
		if err == nil || tt.err != nil && !errors.Is(err, tt.err) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: got error %v, want %v with %q", tt.name, err, tt.err, tt.text)
		}
		if names := fileNames(t, dir); !slices.Equal(names, []string{"old"}) {
			t.Errorf("%s: the folder contains %q", tt.name, names)
		}
		if data, err := os.ReadFile(old); err != nil || !bytes.Equal(data, before) {
			t.Errorf("%s: the existing file was changed, %v", tt.name, err)
		}
	}
	if _, err := Backup(testContext(t), s.path, old, CopyOptions{Owner: "me", Replace: true}); err != nil {
		t.Error(err)
	}
	if names := fileNames(t, dir); !slices.Equal(names, []string{"old"}) {
		t.Errorf("after the file was replaced, the folder contains %q", names)
	}
	if _, err := checkCopy(testContext(t), old, "me"); err != nil {
		t.Error(err)
	}
}

// With Replace, an existing file is replaced only if it is a backup, damaged or not, or empty, and through
// a symbolic link only if no other user can have made that.
func TestBackupReplaces(t *testing.T) {
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	dir := t.TempDir()
	file, backup := filepath.Join(dir, "file"), makeBackup(t, s.path)
	o := CopyOptions{Owner: "me", Replace: true}
	write := func(content []byte) {
		t.Helper()
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	whole, err := os.ReadFile(backup)
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string][]byte{"a backup": whole, "half of one": whole[:len(whole)/2], "an empty file": nil} {
		write(content)
		if _, err := Backup(testContext(t), s.path, file, o); err != nil {
			t.Errorf("%s is not replaced: %v", name, err)
		}
	}
	other := Options{Service: true, Owner: "another"}
	for name, change := range map[string]func(){
		"text":                            func() { write([]byte("a text")) },
		"zeros":                           func() { write(make([]byte, 8192)) },
		"of another program":              func() { runSQL(t, file, "CREATE TABLE another (a)") },
		"a stopped store of another node": func() { _ = openFile(t, file, other).Close() },
		"a running store of another node": func() { openFile(t, file, other) },
		"a running store that was made of a backup by hand": func() {
			write(whole)
			used := openOwned(t, file)
			declareTest(t, used, "q")
			putBodies(t, used, "q", numbers(5)...)
		},
		"another user's link": func() { linkOfOther(t, file, backup) },
	} {
		file = filepath.Join(t.TempDir(), "file")
		change()
		before, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Backup(testContext(t), s.path, file, o); err == nil {
			t.Errorf("%s: replaced", name)
		}
		if after, err := os.ReadFile(file); err != nil || !bytes.Equal(before, after) {
			t.Errorf("%s: changed, %v", name, err)
		}
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
	}
}

// linkOfOther makes a symbolic link of another user in a folder where everybody can make one.
func linkOfOther(t *testing.T, link, to string) {
	t.Helper()
	if err := os.Chmod(filepath.Dir(link), 0o777|fs.ModeSticky); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(to, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Lchown(link, 12345, 12345); err != nil {
		t.Skipf("skipped: a symbolic link of another user (%v)", err)
	}
}

// A backup gives up, and does not fill the disk, if the write-ahead log grows too much meanwhile.
func TestBackupBoundsLog(t *testing.T) {
	t.Parallel()
	store := filepath.Join(t.TempDir(), "messages.db")
	if err := os.WriteFile(store+"-wal", make([]byte, 10_000), 0o600); err != nil {
		t.Fatal(err)
	}
	for limit, good := range map[int64]bool{10_000: true, 9_999: false} {
		l := newWALLimit(store, 0)
		l.limit = limit
		if err := l.check(); (err == nil) != good {
			t.Errorf("limit %d: %v", limit, err)
		}
	}
	if l := newWALLimit(store, 4*maxBackupWAL); l.limit != 4*maxBackupWAL || l.start != 10_000 {
		t.Errorf("%+v", l)
	}
}

// The temporary file of a backup that was killed is removed by a later one to the same file, but not one
// that may still be written.
func TestBackupRemovesLeftovers(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	dir := t.TempDir()
	left, present := filepath.Join(dir, ".backup.tmp-1"), filepath.Join(dir, ".backup.tmp-2")
	for _, name := range []string{left, present} {
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	long := time.Now().Add(-2 * leftoverAge)
	if err := os.Chtimes(left, long, long); err != nil {
		t.Fatal(err)
	}
	if _, err := Backup(testContext(t), s.path, filepath.Join(dir, "backup"), CopyOptions{Owner: "me"}); err != nil {
		t.Fatal(err)
	}
	if names := fileNames(t, dir); !slices.Equal(names, []string{".backup.tmp-2", "backup"}) {
		t.Errorf("the folder contains %q", names)
	}
}

// stateOf returns the contents of all files in a folder, and in its folders, by path.
func stateOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := make(map[string]string)
	if err := fs.WalkDir(os.DirFS(dir), ".", func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(filepath.Join(dir, path))
		files[path] = string(data)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	return files
}

// What is no backup of this node, or not complete, is not restored, and nothing of the present store is
// changed. Nor is a store of another node replaced, or one that another process has open.
func TestRestoreRefused(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(200)...)
	backup := makeBackup(t, s.path)
	open := killed(t, s)
	openAlone := filepath.Join(t.TempDir(), "messages.db")
	copyFile(t, open, openAlone)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	change := func(how func(data []byte) []byte) string {
		t.Helper()
		data, err := os.ReadFile(backup)
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "backup")
		if err := os.WriteFile(path, how(data), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := change(func(data []byte) []byte { return data })
	if err := changeCopy(program, "CREATE TRIGGER t AFTER INSERT ON messages BEGIN DELETE FROM messages; END"); err != nil {
		t.Fatal(err)
	}
	defined := func(how string) string {
		t.Helper()
		path := change(func(data []byte) []byte { return data })
		for statement := range strings.SplitSeq(how, ";") {
			if err := changeCopy(path, statement); err != nil {
				t.Fatal(err)
			}
		}
		return path
	}
	newer := change(func(data []byte) []byte { return data })
	if err := changeCopy(newer, fmt.Sprintf("PRAGMA user_version = %d", schemaVersion+1)); err != nil {
		t.Fatal(err)
	}
	you := filepath.Join(t.TempDir(), "messages.db")
	if err := openFile(t, you, Options{Service: true, Owner: "you"}).Close(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name, from, store, owner string
		err                      error
	}{
		{name: "nothing", from: filepath.Join(t.TempDir(), "none"), err: fs.ErrNotExist},
		{name: "a folder", from: t.TempDir(), err: errNotStore},
		{name: "text", from: change(func([]byte) []byte { return []byte("this is no database at all, and long enough") }), err: errNotStore},
		{name: "a part", from: change(func(data []byte) []byte { return data[:len(data)/2/pageSize*pageSize] }), err: errDamaged},
		{name: "a page of zeros", from: change(func(data []byte) []byte {
			clear(data[len(data)/2/pageSize*pageSize:][:pageSize])
			return data
		}), err: errDamaged},
		{name: "with a trigger", from: program, err: errNotStore},
		{name: "with an endless view", err: errNotStore, from: defined("DROP TABLE store;" +
			"CREATE VIEW store AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x+1 FROM c) SELECT count(*) AS owner, 1 AS closed, 1 AS counting FROM c")},
		{name: "with a computed owner", err: errNotStore, from: defined("DROP TABLE store;" +
			"CREATE TABLE store (closed INTEGER NOT NULL, counting INTEGER NOT NULL, owner TEXT AS (hex(zeroblob(400000000))) VIRTUAL) STRICT;" +
			"INSERT INTO store VALUES (1, 0)")},
		{name: "with a computed default", err: errNotStore, from: defined("DROP TABLE usage;" +
			"CREATE TABLE usage (peer TEXT PRIMARY KEY, bytes INTEGER NOT NULL DEFAULT (length(hex(zeroblob(300000000))))) STRICT, WITHOUT ROWID")},
		{name: "with another rule for conflicts", err: errNotStore, from: defined("DROP TABLE usage;" +
			"CREATE TABLE usage (peer TEXT PRIMARY KEY ON CONFLICT IGNORE, bytes INTEGER NOT NULL) STRICT, WITHOUT ROWID")},
		{name: "of a newer version", from: newer, err: errNewer},
		{name: "a store in use", from: open, err: errMixed},
		{name: "a store in use, without its log", from: openAlone, err: errMixed},
		{name: "a backup of another node", from: makeBackup(t, s.path), owner: "you", store: you, err: ErrOwner},
		{name: "in place of another node's", from: backup, store: you, err: ErrOwner},
		{name: "the store itself", from: s.path},
	} {
		if tt.store == "" {
			tt.store = s.path
		}
		if tt.owner == "" {
			tt.owner = "me"
		}
		before := stateOf(t, filepath.Dir(tt.store))
		_, err := Restore(testContext(t), tt.store, tt.from, CopyOptions{Owner: tt.owner})
		if err == nil || tt.err != nil && !errors.Is(err, tt.err) {
			t.Errorf("%s: got error %v, want %v", tt.name, err, tt.err)
		}
		if after := stateOf(t, filepath.Dir(tt.store)); !maps.Equal(after, before) {
			t.Errorf("%s: the files %q have become %q", tt.name, slices.Sorted(maps.Keys(before)), slices.Sorted(maps.Keys(after)))
		}
	}

	used := openFile(t, s.path, Options{Owner: "me"})
	if _, err := Restore(testContext(t), s.path, backup, CopyOptions{Owner: "me"}); !errors.Is(err, broker.ErrInUse) {
		t.Errorf("a store that is open: got error %v, want %v", err, broker.ErrInUse)
	}
	putBodies(t, used, "q", "201")
	wantQueued(t, reopen(t, used), "q", numbers(201)...)
}

// A store that is replaced is kept with all of its messages, whether or not it was closed, and can be
// opened where it is kept. One that can not be opened is kept as it is.
func TestRestoreKeepsOld(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1")
	backup := makeBackup(t, s.path)
	putBodies(t, s, "q", "2", "3")
	for _, name := range []string{"killed", "closed", "damaged", "log only", "empty"} {
		path := killed(t, s)
		good := false
		switch name {
		case "killed":
			good = true
		case "closed":
			good = true
			if err := openOwned(t, path).Close(); err != nil {
				t.Fatal(err)
			}
		case "damaged":
			if err := os.WriteFile(path, []byte("no database, and long enough for the header of one"), 0o600); err != nil {
				t.Fatal(err)
			}
		case "log only":
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		case "empty":
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		before := stateOf(t, filepath.Dir(path))
		r, err := Restore(testContext(t), path, backup, CopyOptions{Owner: "me"})
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if names := fileNames(t, filepath.Dir(path)); len(names) != 2 || names[0] != filepath.Base(r.KeptIn) {
			t.Errorf("%s: the folder contains %q", name, names)
		}
		if good != (r.Replaced != nil) || good && r.Replaced.Messages != 3 {
			t.Errorf("%s: replaced is %+v", name, r.Replaced)
		}
		kept := filepath.Join(r.KeptIn, "messages.db")
		if good {
			wantQueued(t, openOwned(t, kept), "q", "1", "2", "3")
		} else if kept := stateOf(t, r.KeptIn); !maps.Equal(kept, before) {
			t.Errorf("%s: kept are %q of %q", name, slices.Sorted(maps.Keys(kept)), slices.Sorted(maps.Keys(before)))
		}
		// If the process is killed before the old log is removed, SQLite must not use that with the new file.
		token, err := tokenInFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if log, err := readWAL(filepath.Join(r.KeptIn, "messages.db-wal")); !good && (err != nil || log.continues(token)) {
			t.Errorf("%s: the old log continues the new file, %v", name, err)
		}
		wantQueued(t, openOwned(t, path), "q", "1")
	}
}

// A restore that is killed when the old store has two names leaves the store in its place; the next
// restore removes the second name, through which the store must not be opened.
func TestRestoreRemovesSecondName(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	putBodies(t, s, "q", "1")
	backup := makeBackup(t, s.path)
	putBodies(t, s, "q", "2")
	path := killed(t, s)
	a := keptStore{store: path, owner: "me"}
	if err := a.keep(testContext(t)); err != nil {
		t.Fatal(err)
	}
	a.unlock() // as the end of the process does
	second := a.nameOf(path)
	if s, err := Open(second, Options{Owner: "me"}); !errors.Is(err, broker.ErrInUse) || !strings.Contains(err.Error(), path) {
		t.Errorf("a store opened by its second name: got %v, %v, want %v and the first name", s, err, broker.ErrInUse)
	}
	s = openOwned(t, path)
	if _, err := os.Stat(a.folder); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after the service has opened the store: the folder with its second name: %v", err)
	}
	wantQueued(t, s, "q", "1", "2")
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := Restore(testContext(t), path, backup, CopyOptions{Owner: "me"})
	if err != nil {
		t.Fatal(err)
	}
	if names := fileNames(t, filepath.Dir(path)); len(names) != 2 {
		t.Errorf("the folder contains %q", names)
	}
	wantQueued(t, openOwned(t, filepath.Join(r.KeptIn, "messages.db")), "q", "1", "2")
}

// copyInChild makes a backup, or restores one, and prints a line at each step of the progress.
func copyInChild(task, store, file string) error {
	o := CopyOptions{Owner: "me", Replace: true, Progress: func(done, total int64) { printLine(done, total) }}
	var err error
	if task == "backup" {
		_, err = Backup(context.Background(), store, file, o)
	} else {
		_, err = Restore(context.Background(), store, file, o)
	}
	printLine("done")
	return err
}

// When a backup or a restore is killed, at any time, the old file or store is there, or the new one, and
// complete.
func TestKillCopy(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	putBodies(t, s, "q", "old")
	backup := makeBackup(t, s.path)
	old := filepath.Join(t.TempDir(), "backup")
	copyFile(t, backup, old)
	putBodies(t, s, "q", slices.Repeat([]string{strings.Repeat("x", 300_000)}, 8)...)
	later := makeBackup(t, s.path)
	const lines = 3 // at least, of the child's output
	for n := range 2 * lines {
		c := startChild(t, "backup", s.path, backup)
		killAfter(t, c, n/2+1)
		content, err := checkCopy(testContext(t), backup, "me")
		if err != nil || content.Messages != 1 && content.Messages != 9 {
			t.Fatalf("killed after line %d of a backup: %+v, %v", n/2+1, content, err)
		}
	}
	path := filepath.Join(t.TempDir(), "messages.db")
	for n := range 2 * lines {
		if _, err := Restore(testContext(t), path, old, CopyOptions{Owner: "me"}); err != nil {
			t.Fatal(err)
		}
		c := startChild(t, "restore", path, later)
		killAfter(t, c, n/2+1)
		restored := openOwned(t, path)
		if depth := statsOf(t, restored, "q").Depth; depth != 1 && depth != 9 {
			t.Fatalf("killed after line %d of a restore: %d messages", n/2+1, depth)
		}
		if err := restored.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// While another process reads the store for a long time, as a backup does, the writer waits only briefly
// when it tries to truncate a large write-ahead log, and as long as before when it waits for a lock.
func TestReaderDelaysBriefly(t *testing.T) {
	t.Parallel()
	s := openOwned(t, filepath.Join(t.TempDir(), "messages.db"))
	declareTest(t, s, "q")
	reader, err := openConn(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer reader.close()
	if err := reader.exec("BEGIN"); err != nil {
		t.Fatal(err)
	}
	if _, err := reader.number("SELECT count(*) FROM queues"); err != nil {
		t.Fatal(err)
	}
	// On a busy machine other things than the lock may take long: then it is tried again.
	shortest := time.Hour
	for try := 0; try < 5 && shortest >= busyTimeout*time.Millisecond; try++ {
		putBodies(t, s, "q", "1")
		if err := os.Truncate(s.path+"-wal", maxWAL<<try); err != nil { // what is behind the end is not read
			t.Fatal(err)
		}
		start := time.Now()
		putBodies(t, s, "q", "2")
		shortest = min(shortest, time.Since(start))
	}
	if shortest >= busyTimeout*time.Millisecond {
		t.Errorf("a message was stored after %v while another process was reading", shortest)
	}
	if size := sizeOf(s.path + "-wal"); size < maxWAL {
		t.Fatalf("the write-ahead log was truncated to %d bytes: the test is of no use", size)
	}
	if err := s.commit(testContext(t), func(tx *tx) error {
		n, err := tx.number("PRAGMA busy_timeout")
		if n != busyTimeout {
			t.Errorf("the writer waits %d ms for a lock, want %d", n, busyTimeout)
		}
		return err
	}); err != nil {
		t.Fatal(err)
	}
}
