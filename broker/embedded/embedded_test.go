package embedded

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
)

// childEnv makes the test binary run as a child process: its value is "<task> <file>
// <argument>".
const childEnv = "EMBEDDED_TEST_CHILD"

func TestMain(m *testing.M) {
	if task := os.Getenv(childEnv); task != "" {
		if err := runChild(task); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is a process started by startChild.
type child struct {
	*exec.Cmd
	lines *bufio.Scanner // its output
}

// startChild starts a child process, which is killed at the end of the test.
func startChild(t *testing.T, task string, args ...any) *child {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+task+" "+strings.TrimSuffix(fmt.Sprintln(args...), "\n"))
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
		}
	})
	return &child{cmd, bufio.NewScanner(out)}
}

// openTest opens a store in a new file, and closes it at the end of the test.
func openTest(tb testing.TB, opts Options) *Store {
	tb.Helper()
	return openFile(tb, filepath.Join(tb.TempDir(), "messages.db"), opts)
}

func openFile(tb testing.TB, path string, opts Options) *Store {
	tb.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	s, err := Open(path, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { s.Close() })
	return s
}

// Every transaction that stores messages is counted once, with the time that it has taken.
func TestCommitTimes(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	before, start := s.writer.commits.Histogram(), time.Now()
	for range 3 {
		putBodies(t, s, "q", "1", "2")
	}
	elapsed := time.Since(start).Seconds()
	stats, err := s.Stats(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	after := stats.Commits
	if n, sum := after.Count-before.Count, after.Sum-before.Sum; n != 3 || sum <= 0 || sum > elapsed {
		t.Errorf("%d transactions of %v s in all are counted, expected 3 of at most %v s", n, sum, elapsed)
	}
}

// reopen closes a store and opens its file again.
func reopen(tb testing.TB, s *Store) *Store {
	tb.Helper()
	if err := s.Close(); err != nil {
		tb.Fatal(err)
	}
	return openFile(tb, s.path, Options{})
}

// testContext ends long after all expected events, so that a test that would block for
// ever fails.
func testContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	tb.Cleanup(cancel)
	return ctx
}

// declareTest creates a queue, bound to exchange to_debtors with its name as binding key.
func declareTest(tb testing.TB, s *Store, queue string) {
	tb.Helper()
	q := broker.PeerBinding{PeerID: "peer-" + queue, Exchange: "to_debtors", BindingKey: queue + ".#", Queues: []string{queue}}
	if err := s.Bind(testContext(tb), q); err != nil {
		tb.Fatal(err)
	}
}

func outgoing(bodies ...string) []broker.Outgoing {
	var ms []broker.Outgoing
	for _, b := range bodies {
		ms = append(ms, broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: []byte(b)})
	}
	return ms
}

// putBodies puts messages with these bodies into a queue.
func putBodies(tb testing.TB, s *Store, queue string, bodies ...string) {
	tb.Helper()
	if err := s.PutAll(testContext(tb), queue, outgoing(bodies...)); err != nil {
		tb.Fatal(err)
	}
}

// publishBodies publishes messages with these bodies to an inbox, and waits
// until they are durable.
func publishBodies(tb testing.TB, s *Store, inbox string, bodies ...string) {
	tb.Helper()
	done := make(chan error, 1)
	p, err := s.Publish(testContext(tb), func(n uint64, err error) {
		if err != nil || n == uint64(len(bodies)) {
			done <- err
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	defer p.Close()
	for _, b := range bodies {
		m := &broker.Incoming{Exchange: inbox, RoutingKey: "1.0.1", Type: "AccountUpdate", ContentType: "application/json", Body: []byte(b)}
		if err := p.Publish(testContext(tb), m); err != nil {
			tb.Fatal(err)
		}
	}
	if err := <-done; err != nil {
		tb.Fatal(err)
	}
}

// queued returns the bodies of all messages in a queue.
func queued(tb testing.TB, s *Store, queue string) []string {
	tb.Helper()
	var bodies []string
	err := s.readers.use(testContext(tb), func(r *readConn) error {
		for after := uint64(0); ; {
			ms, err := r.readMessages(queue, after, 10_000)
			if err != nil || len(ms) == 0 {
				return err
			}
			for _, m := range ms {
				bodies = append(bodies, string(m.Body))
			}
			after = ms[len(ms)-1].Seq
		}
	})
	if err != nil {
		tb.Fatal(err)
	}
	return bodies
}

// wantQueued checks which messages are in a queue, and its depth.
func wantQueued(tb testing.TB, s *Store, queue string, want ...string) {
	tb.Helper()
	got := queued(tb, s, queue)
	if !slices.Equal(got, want) {
		tb.Errorf("queue %s has %q, want %q", queue, got, want)
	}
	if depth := statsOf(tb, s, queue).Depth; depth != int64(len(got)) {
		tb.Errorf("queue %s has depth %d, but %d messages", queue, depth, len(got))
	}
}

func statsOf(tb testing.TB, s *Store, queue string) QueueStats {
	tb.Helper()
	stats, err := s.Stats(testContext(tb))
	if err != nil {
		tb.Fatal(err)
	}
	for _, q := range stats.Queues {
		if q.Name == queue {
			return q
		}
	}
	return QueueStats{}
}

// lockFile locks the file for writing, as another process would, and returns the function
// that unlocks it.
func lockFile(tb testing.TB, s *Store) (unlock func()) {
	tb.Helper()
	c, err := openConn(s.path)
	if err != nil {
		tb.Fatal(err)
	}
	if err := c.exec("BEGIN IMMEDIATE"); err != nil {
		tb.Fatal(err)
	}
	locked := true
	unlock = func() {
		if locked {
			locked = false
			if err := c.exec("COMMIT"); err != nil {
				tb.Error(err)
			}
			c.close()
		}
	}
	tb.Cleanup(unlock)
	return unlock
}

// numbers returns "1" to "n".
func numbers(n int) []string {
	var s []string
	for i := range n {
		s = append(s, fmt.Sprint(i+1))
	}
	return s
}

// waitTaken waits until the writer has taken all submitted operations, so that later ones
// form another batch.
func waitTaken(tb testing.TB, s *Store) {
	tb.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		s.writer.mu.Lock()
		n := len(s.writer.batch)
		s.writer.mu.Unlock()
		if n == 0 {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatal("the writer has not taken all submitted operations")
		}
	}
}
