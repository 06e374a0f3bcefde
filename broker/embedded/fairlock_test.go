package embedded

import "testing"

// Another process that wants to write to a busy store is next: it waits at most for the
// current transaction, and for none that begins later.
func TestTurnstile(t *testing.T) {
	s := openTest(t, Options{MaxPending: 100})
	f := startFlood(t, s)
	other, err := openConn(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	batches := func() int {
		s.writer.mu.Lock()
		defer s.writer.mu.Unlock()
		return s.writer.batchNumber
	}
	fairLock := newFairLock(s.path)
	for range 20 {
		for started := batches(); batches() == started; {
		}
		fairLock.lock()
		before := batches()
		err := other.exec("BEGIN IMMEDIATE")
		n := batches() - before
		fairLock.unlock()
		if err != nil {
			t.Fatal(err)
		}
		// The writer may have taken one before it waits for the lock.
		if n > 2 {
			t.Errorf("%d transactions came before", n)
		}
		if err := other.exec("COMMIT"); err != nil {
			t.Fatal(err)
		}
	}
	n := f.stop()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	checkStored(t, openFile(t, s.path, Options{}), n, n)
}
