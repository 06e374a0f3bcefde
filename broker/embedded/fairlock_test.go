package embedded

import "testing"

// Another process that wants to write to a busy store waits only for the current
// transaction, and not for later ones.
func TestFairLock(t *testing.T) {
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
		// The writer may have taken one more batch before it waits for the lock.
		if n > 2 {
			t.Errorf("the other process has waited for %d transactions, want at most 2", n)
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
