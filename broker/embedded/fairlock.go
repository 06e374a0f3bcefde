package embedded

import (
	"os"
	"time"

	"github.com/gofrs/flock"
)

// fairLock lets the processes that write to one file take turns. SQLite's
// write lock goes to the process that happens to ask when it is free: a process that
// commits all the time has it all the time, and another that wants to send one
// message may wait for minutes.
//
// So a process that wants the write lock takes another lock first, that of a file
// beside the store's, and releases it when it has got the write lock. There
// is one process at a time in between, and the one that has just committed
// must queue up behind it.
//
// It is for fairness only. A process that ignores it, as the sqlite3 tool
// does, or passes because waiting has taken too long, does no harm.
type fairLock struct {
	file *flock.Flock
}

// fairLockPoll is how often a process that must wait looks again. A
// transaction takes longer.
const fairLockPoll = time.Millisecond

func newFairLock(path string) fairLock {
	return fairLock{flock.New(path + "-turn")}
}

// lock waits for its turn, but not longer than SQLite would.
func (t fairLock) lock() {
	for deadline := time.Now().Add(busyTimeout * time.Millisecond); ; time.Sleep(fairLockPoll) {
		entered, err := t.file.TryLock()
		if entered || err != nil || time.Now().After(deadline) {
			return
		}
	}
}

func (t fairLock) unlock() { _ = t.file.Unlock() }

// close removes the file. Should another process hold its lock just now, the
// next to enter makes a new one.
func (t fairLock) close() { _ = os.Remove(t.file.Path()) }
