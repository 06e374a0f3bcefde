package embedded

import (
	"bytes"
	"errors"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// openCopy opens a copy of two files as a store, and returns the error.
func openCopy(t *testing.T, file, wal string) error {
	t.Helper()
	path := filepath.Join(t.TempDir(), "messages.db")
	copyFile(t, file, path)
	if wal != "" {
		copyFile(t, wal, path+"-wal")
	}
	s, err := Open(path, Options{Service: true})
	if err == nil {
		err = s.Close()
	}
	return err
}

// checkpoint checkpoints the write-ahead log of an open store, in one of the modes of PRAGMA
// wal_checkpoint.
func checkpoint(t *testing.T, path, mode string) {
	t.Helper()
	c, err := openConn(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if busy, err := c.number("PRAGMA wal_checkpoint(" + mode + ")"); err != nil || busy != 0 {
		t.Fatalf("moving the log into the file: busy %d, %v", busy, err)
	}
}

// A file with a write-ahead log of another point in time, or of another store, is refused,
// whichever of the two is older. Copies of the same point in time, and the file alone, are
// opened.
func TestMixed(t *testing.T) {
	dir := t.TempDir()
	moment := func(s *Store, name string) (file, wal string) {
		file, wal = filepath.Join(dir, name), filepath.Join(dir, name+"-wal")
		copyFile(t, s.path, file)
		copyFile(t, s.path+"-wal", wal)
		return file, wal
	}
	s, other := openTest(t, Options{}), openTest(t, Options{})
	var files, wals []string
	for _, name := range []string{"a", "b", "c"} {
		publishBodies(t, s, "accounts_in", name)
		publishBodies(t, s, "accounts_in", name)
		checkpoint(t, s.path, "RESTART") // the next transaction restarts the log
		publishBodies(t, s, "accounts_in", name)
		file, wal := moment(s, name)
		files, wals = append(files, file), append(wals, wal)
	}
	publishBodies(t, other, "accounts_in", "x")
	checkpoint(t, other.path, "RESTART")
	publishBodies(t, other, "accounts_in", "x")
	file, wal := moment(other, "x")
	files, wals = append(files, file), append(wals, wal)
	for i, file := range files {
		if err := openCopy(t, file, ""); err != nil {
			t.Errorf("file %d alone: %v", i, err)
		}
		for j, wal := range wals {
			err := openCopy(t, file, wal)
			if i == j && err != nil {
				t.Errorf("copy of moment %d: %v", i, err)
			} else if i != j && !errors.Is(err, errMixed) {
				t.Errorf("file of moment %d and log of %d: got %v, want errMixed", i, j, err)
			}
		}
	}
}

// The files of a process that is killed at any time, while it checkpoints continuously,
// are opened again.
func TestKilledIsNotMixed(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	runs := 5
	if os.Getenv("PEERLINK_TEST_LONG") != "" {
		runs = 10
	}
	for run := range runs {
		c := startChild(t, "publish", path, run)
		killAfter(t, c, 1+rand.IntN(120))
		if err := openCopy(t, path, path+"-wal"); err != nil {
			t.Fatalf("run %d: %v", run, err)
		}
		if err := checkPair(path); err != nil { // with messages.db-last
			t.Fatalf("run %d: %v", run, err)
		}
		if run%5 == 2 { // start with a small log
			s := openFile(t, path, Options{Service: true})
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// After a service was killed, a damaged file is refused.
func TestDamageIsFound(t *testing.T) {
	s := openTest(t, Options{Service: true})
	publishBodies(t, s, "accounts_in", numbers(2000)...)
	checkpoint(t, s.path, "TRUNCATE")
	dir := t.TempDir()
	file, empty := filepath.Join(dir, "copy"), filepath.Join(dir, "empty")
	copyFile(t, s.path, file)
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openCopy(t, file, empty); err != nil {
		t.Fatalf("without damage: %v", err)
	}
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := len(data) - 2*pageSize; i < len(data); i++ {
		data[i] ^= 0x55
	}
	if err := os.WriteFile(file, data, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := openCopy(t, file, empty); !errors.Is(err, errDamaged) {
		t.Errorf("got %v, want errDamaged", err)
	}
}

// If a service has not closed the store, the file alone is refused, as after a copy without
// the write-ahead log. The file is opened with its log, also after a command has opened both,
// and with an empty log. If the store was closed, the file alone is opened.
func TestMissingLog(t *testing.T) {
	s := openTest(t, Options{Service: true})
	publishBodies(t, s, "accounts_in", numbers(10)...)
	dir := t.TempDir()
	file, wal := filepath.Join(dir, "messages.db"), filepath.Join(dir, "messages.db-wal")
	copyFile(t, s.path, file)
	copyFile(t, s.path+"-wal", wal)
	if err := openCopy(t, file, ""); !errors.Is(err, errMixed) {
		t.Errorf("without the log: got %v, want errMixed", err)
	}
	command, err := Open(file, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openCopy(t, file, wal); err != nil {
		t.Errorf("after a command: %v", err)
	}
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	copyFile(t, s.path, file)
	if err := openCopy(t, file, empty); err != nil {
		t.Errorf("with an empty log: %v", err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := openCopy(t, s.path, ""); err != nil {
		t.Errorf("closed: %v", err)
	}
}

// killed returns a copy of the files of an open store, as a service that is killed leaves
// them.
func killed(t *testing.T, s *Store) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "messages.db")
	for _, suffix := range []string{"", "-wal", lastTokenSuffix} {
		copyFile(t, s.path+suffix, path+suffix)
	}
	return path
}

// runSQL does what the sqlite3 tool does when it runs SQL.
func runSQL(t *testing.T, path, sql string) {
	t.Helper()
	c, err := openConnURI(path, "")
	if err != nil {
		t.Fatal(err)
	}
	if err := c.exec(sql); err != nil {
		t.Error(err)
	}
	if err := c.close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(path + "-wal"); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("the log is still there: %v", err)
	}
}

// vacuumRecipe returns the handbook's SQL for a file that a peerlink with a schema version below 3 has made.
func vacuumRecipe(t *testing.T) string {
	t.Helper()
	handbook, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, sql, _ := strings.Cut(string(handbook), "`sqlite3 messages.db '")
	sql, _, ok := strings.Cut(sql, "'`")
	if !ok {
		t.Fatal("the recipe is not in the handbook")
	}
	return sql
}

// After a service was killed, a store that the sqlite3 tool has opened since, which moves
// the write-ahead log into the file and removes it, is opened with all messages. The
// handbook's VACUUM needs no messages.db-last for that, and otherwise the error names the
// remedy. A file without its log is still refused if the log had a later transaction.
func TestLogRemovedBySQLite(t *testing.T) {
	if bootID() == "" {
		t.Skip("skipped: a write-ahead log that sqlite3 has removed (the system has no boot ID)")
	}
	s := openTest(t, Options{Service: true})
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(10)...)
	checkpoint(t, s.path, "RESTART")
	earlier := killed(t, s)
	putBodies(t, s, "q", "11")
	for _, tt := range []struct {
		name, sql string
		without   bool // messages.db-last
		want      error
	}{
		{"a query", "SELECT count(*) FROM messages", false, nil},
		{"the handbook's VACUUM", vacuumRecipe(t), false, nil},
		{"a query after a power failure", "SELECT count(*) FROM messages", true, errMixed},
		{"the handbook's VACUUM after a power failure", vacuumRecipe(t), true, nil},
	} {
		path := killed(t, s)
		runSQL(t, path, tt.sql)
		if tt.without {
			if err := os.Remove(path + lastTokenSuffix); err != nil {
				t.Fatal(err)
			}
		}
		after, err := Open(path, Options{Service: true})
		if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), "sqlite3") {
			t.Errorf("%s: got %v, want %v", tt.name, err, tt.want)
		}
		if err != nil {
			if err := os.WriteFile(path+"-wal", nil, 0o600); err != nil { // as the error advises
				t.Fatal(err)
			}
			if after, err = Open(path, Options{Service: true}); err != nil {
				t.Errorf("%s: with an empty log: %v", tt.name, err)
				continue
			}
		}
		wantQueued(t, after, "q", numbers(11)...)
		if err := after.Close(); err != nil {
			t.Error(err)
		}
		if _, err := os.Stat(path + lastTokenSuffix); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s: the closed store still has its file messages.db-last: %v", tt.name, err)
		}
	}
	path := killed(t, s)
	copyFile(t, earlier, path) // an older backup
	if err := os.Remove(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{Service: true}); !errors.Is(err, errMixed) {
		t.Errorf("older file: got %v, want errMixed", err)
	}
	path = killed(t, s)
	if err := os.Remove(path + "-wal"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(path, Options{Service: true}); !errors.Is(err, errMixed) {
		t.Errorf("log removed with a message in it: got %v, want errMixed", err)
	}
}

// damagedStore returns a closed store with 1000 messages in queue "bad", some of them
// unreadable, and 10 in queue "good".
func damagedStore(t *testing.T) (path string) {
	t.Helper()
	s := storeToDamage(t)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	damage(t, s.path)
	return s.path
}

// damagedAndKilled is damagedStore of a service that was killed, with message "11" in
// queue "good", which is in the write-ahead log.
func damagedAndKilled(t *testing.T) (path string) {
	t.Helper()
	s := storeToDamage(t)
	checkpoint(t, s.path, "TRUNCATE")
	putBodies(t, s, "good", "11")
	path = killed(t, s)
	damage(t, path)
	return path
}

const badMessages = 1000

// badBodies returns the bodies in queue "bad".
func badBodies() []string {
	bodies := numbers(badMessages)
	for i := range bodies {
		bodies[i] = strings.Repeat("x", 1000) + bodies[i]
	}
	return bodies
}

func storeToDamage(t *testing.T) *Store {
	t.Helper()
	s := openTest(t, Options{Service: true, Owner: "me"})
	declareTest(t, s, "good")
	declareTest(t, s, "bad")
	putBodies(t, s, "good", numbers(10)...)
	putBodies(t, s, "bad", badBodies()...)
	return s
}

// damage overwrites a page with messages of queue "bad".
func damage(t *testing.T, path string) {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	middle := bytes.Index(data, []byte(badBodies()[badMessages/2])) / pageSize * pageSize
	clear(data[middle : middle+pageSize])
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// Damage that a running service finds, because the previous one has closed the store, is
// reported by Health and logged, for as long as it exists. Queues without damage work.
func TestDamageIsProblem(t *testing.T) {
	path := damagedStore(t)
	log := make(reports, 10)
	s := openFile(t, path, Options{Service: true, Logger: slog.New(log)})
	if err := s.Health(); err != nil {
		t.Fatal(err)
	}
	bad, good := consume(t, s, "bad"), consume(t, s, "good")
	var err error
	for err == nil {
		_, err = bad.Next(testContext(t), 100)
	}
	if !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "operations.md") {
		t.Errorf("got %v, want errDamaged with the remedy", err)
	}
	log.want(t, "ERROR can not read the message store")
	ds, err := good.Next(testContext(t), 10)
	if err != nil || len(ds) != 10 {
		t.Fatalf("%d messages of the other queue, %v", len(ds), err)
	}
	if err := good.Confirm(ds[9].Tag); err != nil {
		t.Fatal(err)
	}
	s.flush()
	if err := s.Health(); !errors.Is(err, errDamaged) || !strings.Contains(err.Error(), "bad") {
		t.Errorf("the problem is %v, want errDamaged of the queue", err)
	}
	s.faults.interval = 0
	s.faults.recheck()
	if err := s.Health(); !errors.Is(err, errDamaged) {
		t.Errorf("after a check of the damaged file the problem is %v, want errDamaged", err)
	}
	s.faults.record("read messages of queue bad", nil)
	log.want(t, "INFO the message store can be read again")
	if err := s.Health(); err != nil {
		t.Error(err)
	}
}

// A failed read that is not repeated is a problem only until a check of the file finds no
// damage.
func TestReadFaultEnds(t *testing.T) {
	log := make(reports, 10)
	s := openTest(t, Options{Logger: slog.New(log)})
	s.faults.interval = time.Millisecond
	s.faults.record("watch accounts_in", errDamaged) // as SQLite reports an input error
	log.want(t, "ERROR can not read the message store")
	eventually(t, "the end of the problem", func() bool { return s.Health() == nil })
	log.want(t, "INFO the message store can be read again")
}

// The handbook's procedure for a damaged store saves the readable messages, whether or not
// the service was killed.
func TestSaveWhatCanBeRead(t *testing.T) {
	if _, err := exec.LookPath("sqlite3"); err != nil {
		t.Skip("skipped: saving a damaged store (sqlite3 is not installed)")
	}
	handbook, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, _ := strings.Cut(string(handbook), "\n## A damaged message store\n")
	section, _, _ = strings.Cut(section, "\n## ")
	script := ""
	for line := range strings.Lines(section) {
		if command, ok := strings.CutPrefix(line, "    "); ok {
			script += command
		}
	}
	for _, tt := range []struct {
		name string
		path string
		good int
	}{{"closed", damagedStore(t), 10}, {"killed", damagedAndKilled(t), 11}} {
		t.Run(tt.name, func(t *testing.T) {
			cmd := exec.Command("sh", "-e", "-c", script)
			cmd.Dir = filepath.Dir(tt.path)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("%v: %s", err, out)
			}
			s := openFile(t, tt.path, Options{Service: true, Owner: "me"})
			wantQueued(t, s, "good", numbers(tt.good)...)
			if n := len(queued(t, s, "bad")); n < 980 || n >= badMessages {
				t.Errorf("%d of %d messages are saved", n, badMessages)
			}
			if info, err := os.Stat(tt.path); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%v, %v", info.Mode(), err)
			}
			putBodies(t, s, "bad", "new")
		})
	}
}

// An empty file, with or without a write-ahead log, and a log without its file are refused,
// and no file is created. If there is neither, a new store is created, which is logged.
func TestLostFile(t *testing.T) {
	var log bytes.Buffer
	s := openFile(t, filepath.Join(t.TempDir(), "messages.db"), Options{Service: true, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if !strings.Contains(log.String(), newStoreMessage) {
		t.Errorf("the log is %q, want a record of the new store", log.String())
	}
	publishBodies(t, s, "accounts_in", numbers(10)...)
	for _, test := range []struct {
		name      string
		file, wal bool // whether it exists
		want      error
	}{
		{"empty file", true, false, errNotStore},
		{"empty file beside its log", true, true, errNotStore},
		{"log only", false, true, errMixed},
	} {
		path := filepath.Join(t.TempDir(), "messages.db")
		if test.file {
			if err := os.WriteFile(path, nil, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if test.wal {
			copyFile(t, s.path+"-wal", path+"-wal")
		}
		other, err := Open(path, Options{Service: true})
		if err == nil {
			other.Close()
		}
		if !errors.Is(err, test.want) {
			t.Errorf("%s: got %v, want %v", test.name, err, test.want)
		}
		if info, err := os.Stat(path); (err == nil) != test.file || err == nil && info.Size() > 0 {
			t.Errorf("%s: a file was created", test.name)
		}
	}
}

// A file from before or during a shrink, or from before the store was closed, is refused
// with a later write-ahead log.
func TestMixedAfterShrinkOrClose(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", strings.Split(strings.Repeat(strings.Repeat("x", 10_000)+" ", 300), " ")...)
	c := consume(t, s, "q")
	for taken := 0; taken < 300; {
		ds, err := c.Next(testContext(t), 300)
		if err != nil {
			t.Fatal(err)
		}
		taken += len(ds)
		if err := c.Confirm(ds[len(ds)-1].Tag); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	w, err := openWriteConn(s.path, Options{}.withDefaults())
	if err != nil {
		t.Fatal(err)
	}
	defer w.close()
	before, wal := filepath.Join(dir, "before"), filepath.Join(dir, "wal")
	for _, change := range []func(){func() { _ = w.recordOpen() }, func() { _ = w.releasePages(maxShrinkStep) }, w.recordClosed} {
		checkpoint(t, s.path, "TRUNCATE")
		copyFile(t, s.path, before)
		change()
		checkpoint(t, s.path, "TRUNCATE")
		publish := func() error {
			return w.exec("INSERT INTO usage VALUES ('a', 1) ON CONFLICT DO UPDATE SET bytes = bytes + 1")
		}
		if err := w.commitChange(publish); err != nil {
			t.Fatal(err)
		}
		copyFile(t, s.path+"-wal", wal)
		if err := openCopy(t, before, wal); !errors.Is(err, errMixed) {
			t.Errorf("got %v, want errMixed", err)
		}
	}
}
