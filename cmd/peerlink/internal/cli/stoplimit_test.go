package cli

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
)

// A command whose store can not be closed, because its disk hangs, ends the process after the limit, with the reason: after
// a signal, and also when the command begins to end by itself. The store is still locked then. A command that has ended
// in time does not.
func TestLimitStop(t *testing.T) {
	s, err := embedded.Open(filepath.Join(t.TempDir(), "messages.db"), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	hangs, resume := make(chan struct{}), make(chan struct{})
	hang := func(error) { close(hangs); <-resume } // on the writer's goroutine
	if err := s.Send(t.Context(), "x", "k", broker.Outgoing{Type: "T", ContentType: "application/json"}, hang); err != nil {
		t.Fatal(err)
	}
	<-hangs
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()

	late := errors.New("the disk hangs")
	for _, bySignal := range []bool{true, false} {
		var stderr strings.Builder
		exited := make(chan int, 1)
		a := &app{stderr: &stderr, exit: func(code int) { exited <- code }}
		ctx, signal := context.WithCancel(t.Context())
		defer signal()
		begin, end := a.limitStop(ctx, time.Millisecond, late)
		if bySignal {
			begin = signal
		}
		begin()
		if code := <-exited; code != exitFailed || !strings.Contains(stderr.String(), late.Error()) {
			t.Errorf("by a signal %v: exit code %d, printed %q", bySignal, code, stderr.String())
		}
		select {
		case err := <-closed:
			t.Errorf("by a signal %v: the store was closed: %v", bySignal, err)
		default:
		}
		end()
	}
	close(resume)
	if err := <-closed; err != nil {
		t.Fatal(err)
	}

	a := &app{stderr: new(strings.Builder), exit: func(int) { t.Error("a command that has ended in time ends the process") }}
	begin, end := a.limitStop(t.Context(), time.Hour, late)
	begin()
	end()
	end()
}
