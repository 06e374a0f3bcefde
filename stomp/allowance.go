package stomp

import "time"

const (
	// A peer may send this many line ends between frames, or receipts that
	// confirm nothing new, besides lineEndsPerFrame. It is far more than
	// heart-beats need, and little enough to cost nothing.
	freeAtOnce    = 1000
	freePerSecond = 100
	// lineEndsPerFrame are those that may follow each frame (STOMP 1.2,
	// "Augmented BNF"). Clients that are known send one.
	lineEndsPerFrame = 10
)

// allowance bounds what a peer may send without being held up by back pressure: it
// is of no use, so nobody waits for it to be stored. What was not used stays: a
// reader that is held up for hours finds all heart-beats of that time at once.
type allowance struct {
	start  time.Time
	used   int64
	earned int64
}

func newAllowance() allowance { return allowance{start: time.Now(), earned: freeAtOnce} }

// earn allows n more.
func (a *allowance) earn(n int64) { a.earned += n }

// spend uses one, and reports whether it was allowed.
func (a *allowance) spend() bool {
	a.used++
	return a.used <= a.earned || a.used <= a.earned+int64(time.Since(a.start)/(time.Second/freePerSecond))
}
