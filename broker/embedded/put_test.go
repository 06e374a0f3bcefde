package embedded

import (
	"context"
	"errors"
	"testing"
	"time"

	"peerlink/broker"
)

// PutAll returns an error about the end of its context only if nothing is stored: a caller who is told so
// may send the messages again. The context ends here while the writer is busy, so that the messages may
// have been submitted, and are not yet written.
func TestPutIsInterrupted(t *testing.T) {
	s := openTest(t, Options{})
	declareTest(t, s, "q")
	for range 20 {
		hangs, resume := make(chan struct{}), make(chan struct{})
		hang := func(error) { close(hangs); <-resume } // on the writer's goroutine
		if err := s.Send(testContext(t), "to_debtors", "q", broker.Outgoing{Type: "T", ContentType: "application/json"}, hang); err != nil {
			t.Fatal(err)
		}
		<-hangs
		before := waitingIn(t, s)
		ctx, cancel := context.WithCancel(testContext(t))
		ended := make(chan error, 1)
		go func() { ended <- s.PutAll(ctx, "q", outgoing("1", "2")) }()
		time.AfterFunc(time.Millisecond, cancel)
		<-ctx.Done()
		close(resume)
		err := <-ended
		stored := waitingIn(t, s) - before
		if err == nil && stored != 2 || err != nil && (stored != 0 || !errors.Is(err, context.Canceled)) {
			t.Fatalf("%v, and %d messages are stored", err, stored)
		}
	}
}

// waitingIn returns the number of messages that wait in the queue q.
func waitingIn(t *testing.T, s *Store) int {
	t.Helper()
	info, err := s.Info(testContext(t), "q")
	if err != nil {
		t.Fatal(err)
	}
	return info.Waiting
}
