package stomp

import "time"

const (
	// A peer may send freeAtOnce, and freePerSecond more for each second, of two things:
	// line ends between frames (and lineEndsPerFrame more for each frame), and receipts
	// that confirm nothing new. That is far more than heart-beats need, and few enough to
	// cost next to nothing.
	freeAtOnce    = 1000
	freePerSecond = 100
	// lineEndsPerFrame is how many line ends may follow each frame (STOMP 1.2,
	// "Augmented BNF"). Known clients send one.
	lineEndsPerFrame = 10
)

// allowance limits how much a peer may send of what is not subject to backpressure,
// because it contains no message that has to be stored. An unused allowance does not
// expire: a reader that was blocked for hours receives all heart-beats of that time at
// once.
type allowance struct {
	start   time.Time
	used    int64
	granted int64 // not counting freePerSecond
}

func newAllowance() allowance { return allowance{start: time.Now(), granted: freeAtOnce} }

// grant increases the allowance by n.
func (a *allowance) grant(n int64) { a.granted += n }

// take uses 1 of the allowance, and reports whether the allowance was sufficient.
func (a *allowance) take() bool {
	a.used++
	return a.used <= a.granted+int64(time.Since(a.start)/(time.Second/freePerSecond))
}
