package embedded

import "testing"

// However busy a store is, another process that wants to write comes next: at
// most the transaction that is under way, and none that begins later, comes
// before it.
func TestTurnstile(t *testing.T) {
	s := openTest(t, Options{MaxPending: 100})
	f := startFlood(t, s)
	other, err := dial(s.path)
	if err != nil {
		t.Fatal(err)
	}
	defer other.close()
	batches := func() int {
		s.writer.mu.Lock()
		defer s.writer.mu.Unlock()
		return s.writer.number
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
		// One may have been taken to wait at the fairLock.
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
