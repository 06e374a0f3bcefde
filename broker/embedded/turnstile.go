package embedded

import (
	"os"
	"time"

	"github.com/gofrs/flock"
)

// turnstile lets the processes that write to one file take turns. SQLite's
// write lock goes to whoever happens to ask when it is free: a process that
// commits all the time has it all the time, and another that wants to send one
// message may wait for minutes.
//
// So whoever wants the write lock takes another lock first, that of a file
// beside the store's, and lets go of it when he has got the write lock. There
// is one process at a time in between, and the one that has just committed
// must queue up behind it.
//
// It is a matter of politeness only. Whoever ignores it, as the sqlite3 tool
// does, or passes because waiting has taken too long, does no harm.
type turnstile struct {
	lock *flock.Flock
}

// turnstilePoll is how often a process that must wait looks again. A
// transaction takes longer.
const turnstilePoll = time.Millisecond

func newTurnstile(path string) turnstile {
	return turnstile{flock.New(path + "-turn")}
}

// enter waits for its turn, but not longer than SQLite would.
func (t turnstile) enter() {
	for deadline := time.Now().Add(busyTimeout * time.Millisecond); ; time.Sleep(turnstilePoll) {
		entered, err := t.lock.TryLock()
		if entered || err != nil || time.Now().After(deadline) {
			return
		}
	}
}

func (t turnstile) leave() { _ = t.lock.Unlock() }

// close removes the file. Should another process hold its lock just now, the
// next to enter makes a new one.
func (t turnstile) close() { _ = os.Remove(t.lock.Path()) }
