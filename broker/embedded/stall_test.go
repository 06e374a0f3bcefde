package embedded

import (
	"path/filepath"
	"testing"
	"time"
)

// A writer whose transaction does not end is reported; a writer whose transactions fail,
// or that is idle, is not.
func TestStalled(t *testing.T) {
	s, err := Open(filepath.Join(t.TempDir(), "messages.db"), Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	const limit = 4 * pollInterval
	time.Sleep(2 * limit) // idle
	if s.writer.pulse.Silence() > limit {
		t.Errorf("an idle writer was silent for %v", s.writer.pulse.Silence())
	}
	hangs, resume := make(chan struct{}), make(chan struct{})
	settled, err := s.submitCall(func(*tx) error { close(hangs); <-resume; return nil })
	if err != nil {
		t.Fatal(err)
	}
	<-hangs
	for s.stalledFor(limit) == nil {
		time.Sleep(pollInterval)
	}
	if err := s.Stalled(); err != nil {
		t.Errorf("too early: %v", err)
	}
	close(resume)
	if err := <-settled; err != nil {
		t.Fatal(err)
	}
	for s.stalledFor(limit) != nil {
		time.Sleep(pollInterval)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if s.writer.pulse.Silence() != 0 {
		t.Error("a writer that has ended counts as silent")
	}
}
