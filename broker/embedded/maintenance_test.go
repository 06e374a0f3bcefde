package embedded

import (
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"testing"
)

// Without space, maintenance operations that have been written one by one are written once,
// and finished once, also if a later one of them fails: the result of a caller that does not
// wait any more must not block the writer.
func TestMaintenanceIsWrittenOnce(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{Service: true, Reserve: 1 << 16})
	begun, proceed := make(chan struct{}), make(chan struct{})
	blocking, err := s.submitCall(func(*tx) error { close(begun); <-proceed; return nil })
	if err != nil {
		t.Fatal(err)
	}
	<-begun // the following operations are collected for one transaction
	var applied, finished atomic.Int32
	first := callOp{do: func(*tx) error { applied.Add(1); return nil }, done: func(error) { finished.Add(1) }}
	if err := s.writer.submit(&first); err != nil {
		t.Fatal(err)
	}
	var hasSpace atomic.Bool
	last, err := s.submitCall(func(*tx) error {
		if !hasSpace.Load() {
			return ErrFull
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	close(proceed)
	if err := <-blocking; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure", func() bool { return s.Health() != nil })
	// Alone, the operation was applied once. Before that, it was in transactions that failed.
	if n := finished.Load(); n != 1 {
		t.Errorf("the first operation was finished %d times, want 1", n)
	}
	before := applied.Load()
	hasSpace.Store(true)
	if err := <-last; err != nil {
		t.Error(err)
	}
	if n := finished.Load(); n != 1 || applied.Load() != before {
		t.Errorf("the first operation was finished %d times, and applied %d times more; want 1 and 0", n, applied.Load()-before)
	}
}

// partsOp is a maintenance operation that is done in parts.
type partsOp struct {
	callOp
	parts func(size uint64) ([]op, error)
}

func (o *partsOp) split(_ *tx, size uint64) ([]op, error) { return o.parts(size) }

// Without space, an operation is tried in smaller and smaller parts, down to parts of minStep
// messages, before it fails or the reserve is removed: otherwise a queue could not be emptied
// although there is space for that.
func TestPartsUntilSmallest(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{Service: true, Reserve: 1 << 16})
	reserved := func() bool { _, err := os.Stat(s.path + "-reserve"); return err == nil }
	eventually(t, "the reserve", reserved)
	var sizes []uint64 // used by the writer's goroutine until the operation is done
	var kept bool      // the reserve existed then
	done := make(chan error, 1)
	if err := s.writer.submit(&partsOp{
		callOp: callOp{
			do: func(*tx) error {
				if len(sizes) < 3 {
					return ErrFull
				}
				return nil
			},
			done: func(err error) { kept = reserved(); done <- err },
		},
		parts: func(size uint64) ([]op, error) {
			if sizes = append(sizes, size); len(sizes) < 3 {
				return nil, ErrFull
			}
			return nil, nil
		},
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || !kept {
		t.Errorf("got %v; the reserve was kept: %v", err, kept)
	}
	if want := []uint64{maxStep, maxStep / 10, minStep}; !slices.Equal(sizes, want) {
		t.Errorf("the parts have %d messages, want %d", sizes, want)
	}
}

// If maintenance operations fail because of missing space, they are written as soon as the reserve
// is removed: that is no failure, after which the writer would pause.
func TestReserveGivenUpAtOnce(t *testing.T) {
	t.Parallel()
	s := openTest(t, Options{Service: true, Reserve: 1 << 16})
	reserved := func() bool { _, err := os.Stat(s.path + "-reserve"); return err == nil }
	eventually(t, "the reserve", reserved)
	type result struct {
		err     error
		problem *Problem
	}
	done := make(chan result, 1)
	if err := s.writer.submit(&callOp{
		do: func(*tx) error {
			if reserved() {
				return ErrFull
			}
			return nil
		},
		done: func(err error) { done <- result{err, s.writer.problem.Load()} },
	}); err != nil {
		t.Fatal(err)
	}
	if r := <-done; r != (result{}) {
		t.Errorf("got %v; recorded as a problem: %+v", r.err, r.problem)
	}
}

// If maintenance operations have failed altogether, and there is enough space later to write
// them one by one but not in one transaction, the writer does not only write these: it also
// accepts new ones, although there is too little space for messages.
func TestMaintenanceGoesOnWithLittleSpace(t *testing.T) {
	t.Parallel()
	var free atomic.Int64 // bytes
	free.Store(1 << 30)
	s := openFile(t, filepath.Join(t.TempDir(), "messages.db"), Options{
		Service: true, MinFree: 1 << 20, Reserve: 1 << 20,
		freeBytes: func(string) (int64, error) { return free.Load(), nil },
	})
	eventually(t, "the reserve", func() bool { _, err := os.Stat(s.path + "-reserve"); return err == nil })
	free.Store(0)
	var some atomic.Bool // there is enough space for one operation
	var used *tx         // the transaction in which one has been applied
	one := func(t *tx) error {
		if !some.Load() || used == t {
			return ErrFull
		}
		used = t
		return nil
	}
	begun, proceed := make(chan struct{}), make(chan struct{})
	blocking, err := s.submitCall(func(*tx) error { close(begun); <-proceed; return nil })
	if err != nil {
		t.Fatal(err)
	}
	<-begun
	var results []<-chan error
	for range 2 {
		result, err := s.submitCall(one)
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, result)
	}
	close(proceed)
	if err := <-blocking; err != nil {
		t.Fatal(err)
	}
	eventually(t, "the failure", func() bool { return s.writer.problem.Load() != nil })
	some.Store(true)
	for _, result := range results {
		if err := <-result; err != nil {
			t.Error(err)
		}
	}
	if err := s.commit(testContext(t), func(*tx) error { return nil }); err != nil {
		t.Errorf("the next operation: %v", err)
	}
}
