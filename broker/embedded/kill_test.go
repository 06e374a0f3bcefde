package embedded

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"peerlink/broker"
)

// runChild runs a task in a child process: see childEnv.
func runChild(task string) error {
	words := strings.Fields(task)
	if words[0] == "backup" || words[0] == "restore" {
		return copyInChild(words[0], words[1], words[2])
	}
	if words[0] == "receive" {
		return receiveInChild(words[1])
	}
	s, err := Open(words[1], Options{MaxPending: 100})
	if err != nil {
		return err
	}
	switch words[0] {
	case "publish":
		return publishInChild(s, words[2])
	case "confirm":
		return confirmInChild(s)
	case "put":
		return putInChild(s, words[2])
	case "move":
		return moveInChild(s)
	case "retry":
		return retryInChild(s)
	}
	return fmt.Errorf("unknown task %q", task)
}

const (
	takenMinFree = 56 << 20  // more than the disk has: the messages are stored while it has little space
	takenReserve = 512 << 10 // not more than the log, so that an attempt to make it may truncate the log
	takenCount   = 300       // messages in the store
)

// receiveInChild receives takenCount messages, one in a transaction, and waits to be killed.
func receiveInChild(path string) error {
	s, err := Open(path, Options{MinFree: takenMinFree, Reserve: takenReserve, Service: true})
	if err != nil {
		return err
	}
	if err := receiveTaken(s); err != nil {
		return err
	}
	printLine("received")
	select {}
}

// receiveTaken receives takenCount messages, one in a transaction.
func receiveTaken(s *Store) error {
	stored := make(chan error)
	p, err := s.Publish(context.Background(), func(_ uint64, err error) { stored <- err })
	if err != nil {
		return err
	}
	defer p.Close()
	for range takenCount {
		m := broker.Incoming{Peer: "a", Exchange: "accounts_in", Type: "T", Body: make([]byte, 1000)}
		if err := p.Publish(context.Background(), &m); err != nil {
			return err
		}
		if err := <-stored; err != nil {
			return err
		}
	}
	return nil
}

// printLine writes a line to the parent immediately.
func printLine(args ...any) { fmt.Fprintln(os.Stdout, args...) }

// publishInChild publishes messages "<run>:1", "<run>:2", ... without end, and prints how
// many are confirmed.
func publishInChild(s *Store, run string) error {
	ctx := context.Background()
	p, err := s.Publish(ctx, func(n uint64, err error) { printLine(n) })
	for n := 1; err == nil; n++ {
		err = p.Publish(ctx, &broker.Incoming{Exchange: "accounts_in", Body: fmt.Appendf(nil, "%s:%d", run, n)})
	}
	return err
}

// A child makes at most confirmSteps confirmations, each of at most confirmStep more
// messages.
const (
	confirmSteps = 30
	confirmStep  = 50
)

// confirmInChild consumes messages of queue q, and prints each tag before confirming it. When
// it prints the second one, the first confirmation is durable. At the end it waits to be
// killed.
func confirmInChild(s *Store) error {
	ctx := context.Background()
	c, err := s.Consume(ctx, "q")
	if err != nil {
		return err
	}
	for step := range confirmSteps {
		ds, err := c.Next(ctx, 1+rand.IntN(confirmStep))
		if err != nil {
			return err
		}
		d := ds[rand.IntN(len(ds))]
		printLine(string(d.Body))
		if err := c.Confirm(d.Tag); err != nil {
			return err
		}
		if step == 0 {
			if err := s.commit(ctx, func(*tx) error { return nil }); err != nil {
				return err
			}
		}
	}
	select {}
}

// putInChild puts messages "<run>:1" to "<run>:300" into queue q, three at a time.
func putInChild(s *Store, run string) error {
	for n := 1; n <= 300; n += 3 {
		var bodies []string
		for i := range 3 {
			bodies = append(bodies, fmt.Sprintf("%s:%d", run, n+i))
		}
		if err := s.PutAll(context.Background(), "q", outgoing(bodies...)); err != nil {
			return err
		}
	}
	return s.Close()
}

// killAfter reads n lines of a child's output, kills the child immediately, and returns
// the last line of its output.
func killAfter(t *testing.T, c *child, n int) (last string) {
	t.Helper()
	for range n {
		if !c.lines.Scan() {
			t.Fatal("the child has ended by itself")
		}
		last = c.lines.Text()
	}
	if err := c.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for c.lines.Scan() {
		last = c.lines.Text()
	}
	_ = c.Wait()
	return last
}

// checkRun checks that messages begin with "<run>:1", "<run>:2", ... in order, and returns
// how many of them there are.
func checkRun(messages []string, run int) int {
	n := 0
	for n < len(messages) && messages[n] == fmt.Sprintf("%d:%d", run, n+1) {
		n++
	}
	return n
}

// When a process that stores messages is killed, at any time, every message that was
// confirmed is stored: in order, once, and without a gap.
func TestKillPublisher(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	var confirmed []int
	for run := range 8 {
		c := startChild(t, "publish", path, run)
		n, err := strconv.Atoi(killAfter(t, c, 1+rand.IntN(40)))
		if err != nil {
			t.Fatal(err)
		}
		confirmed = append(confirmed, n)
	}
	s := openFile(t, path, Options{})
	messages := queued(t, s, "accounts_in")
	if depth := statsOf(t, s, "accounts_in").Depth; depth != int64(len(messages)) {
		t.Errorf("depth %d, but %d messages", depth, len(messages))
	}
	for run, want := range confirmed {
		n := checkRun(messages, run)
		if n < want {
			t.Fatalf("run %d has confirmed %d messages, but only %d are stored, followed by %q", run, want, n, messages[n:min(n+1, len(messages))])
		}
		messages = messages[n:]
	}
	if len(messages) > 0 {
		t.Errorf("%d messages are stored that no run has published, the first is %s", len(messages), messages[0])
	}
}

// When a process that consumes messages is killed, at any time, every unconfirmed message
// is still stored, in order, and no message whose confirmation was durable.
func TestKillConsumer(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "messages.db")
	const kills = 5
	const total = kills*confirmSteps*confirmStep + 1
	s := openFile(t, path, Options{})
	declareTest(t, s, "q")
	putBodies(t, s, "q", numbers(total)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	removed := 0
	for range kills {
		c := startChild(t, "confirm", path)
		confirmed, err := strconv.Atoi(killAfter(t, c, 2+rand.IntN(confirmSteps-1)))
		if err != nil {
			t.Fatal(err)
		}
		s := openFile(t, path, Options{})
		left := queued(t, s, "q")
		before := removed
		removed = total - len(left)
		if removed > confirmed || removed <= before {
			t.Fatalf("%d messages were removed, %d before, and %d confirmed", removed, before, confirmed)
		}
		for i, body := range left {
			if body != strconv.Itoa(removed+i+1) {
				t.Fatalf("message %s is at place %d after %d were removed", body, i+1, removed)
			}
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// Several processes put messages into one queue while one of them is busy and consumes: no
// process starves, and each message is delivered once, in its sender's order.
func TestProcesses(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{MaxPending: 100})
	declareTest(t, s, "q")
	f := startFlood(t, s)
	children := []*child{startChild(t, "put", s.path, 0), startChild(t, "put", s.path, 1)}
	putBodies(t, s, "q", "2:1", "2:2")
	c := consume(t, s, "q")
	messages, tags := next(t, c, 602)
	for _, child := range children {
		if err := child.Wait(); err != nil {
			t.Errorf("child: %v", err)
		}
	}
	n := f.stop()
	var byRun [3][]string
	for _, m := range messages {
		run := m[0] - '0'
		byRun[run] = append(byRun[run], m)
	}
	for run, want := range []int{300, 300, 2} {
		if got := checkRun(byRun[run], run); got != want || len(byRun[run]) != want {
			t.Errorf("%d messages of %d in order, want %d: %.200q", got, run, want, byRun[run])
		}
	}
	if err := c.Confirm(tags[len(tags)-1]); err != nil {
		t.Fatal(err)
	}
	s = reopen(t, s)
	wantQueued(t, s, "q")
	checkStored(t, s, n, n)
}

// Messages stored by another process wake a waiting consumer, and a waiting subscription.
func TestNoticeOthers(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	other := openFile(t, s.path, Options{})
	c := consume(t, s, "q")
	sub := subscribe(t, s, "accounts_in")
	for i, want := range []string{"1", "2"} {
		started := make(chan struct{})
		got := make(chan string, 2)
		go func() {
			close(started)
			ds, err := c.Next(testContext(t), 1)
			if err != nil {
				got <- err.Error()
				return
			}
			got <- string(ds[0].Body)
		}()
		<-started
		putBodies(t, other, "q", want)
		if body := <-got; body != want {
			t.Errorf("the consumer got %s, want %s", body, want)
		}
		publishBodies(t, other, "accounts_in", want)
		if bodies, seqs := take(t, sub, 1); bodies[0] != want || seqs[0] != uint64(i+1) {
			t.Errorf("the subscription got %s as %d, want %s as %d", bodies[0], seqs[0], want, i+1)
		}
	}
}
