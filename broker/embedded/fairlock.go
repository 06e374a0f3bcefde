package embedded

import (
	"os"
	"time"

	"peerlink/internal/durable"

	"github.com/gofrs/flock"
)

// fairLock makes access to the store's file fair among processes. SQLite's write lock goes
// to the process that happens to request it while it is free: a process that commits
// continuously holds it almost continuously, and another process that stores one message
// may wait for minutes.
//
// So a process acquires a second lock, on a file beside the store, before it acquires the
// write lock, and releases the second lock once it has the write lock. Only one process at
// a time is between the two, and a process that has just committed must wait for it.
//
// The lock affects fairness only. A process that does not use it, such as the sqlite3
// tool, or that proceeds after a timeout, does no harm.
type fairLock struct {
	file *flock.Flock
}

// fairLockPoll is how often a waiting process tries to acquire the lock. A transaction
// takes longer.
const fairLockPoll = time.Millisecond

func newFairLock(path string) fairLock {
	return fairLock{durable.NewFlock(path + "-turn")}
}

// lock acquires the lock. It returns without the lock after an error, or after busyTimeout.
func (l fairLock) lock() {
	for deadline := time.Now().Add(busyTimeout * time.Millisecond); ; time.Sleep(fairLockPoll) {
		locked, err := l.file.TryLock()
		if locked || err != nil || time.Now().After(deadline) {
			return
		}
	}
}

func (l fairLock) unlock() { _ = l.file.Unlock() }

// close removes the file. If another process uses it at this moment, two processes may be
// between the two locks at once, which only affects fairness.
func (l fairLock) close() { _ = os.Remove(l.file.Path()) }
