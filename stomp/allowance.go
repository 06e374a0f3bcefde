package stomp

import "time"

const (
	// A peer may send this many line ends between frames, or receipts that confirm
	// nothing new, in addition to lineEndsPerFrame. That is far more than heart-beats
	// need, and few enough to have no cost.
	freeAtOnce    = 1000
	freePerSecond = 100
	// lineEndsPerFrame is how many line ends may follow each frame (STOMP 1.2,
	// "Augmented BNF"). Known clients send one.
	lineEndsPerFrame = 10
)

// allowance limits what a peer may send that is not subject to backpressure, because it
// carries no message that has to be stored. The unused part is kept: a reader that is
// blocked for hours finds all heart-beats of that time at once.
type allowance struct {
	start  time.Time
	used   int64
	earned int64
}

func newAllowance() allowance { return allowance{start: time.Now(), earned: freeAtOnce} }

// add adds n to the allowance.
func (a *allowance) add(n int64) { a.earned += n }

// take uses one of the allowance, and reports whether there was one left.
func (a *allowance) take() bool {
	a.used++
	return a.used <= a.earned+int64(time.Since(a.start)/(time.Second/freePerSecond))
}
