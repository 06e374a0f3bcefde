package stomp

import "time"

const (
	// initialAllowance is how many line ends between frames, and how many receipts that
	// confirm nothing new, a peer may send at once; allowancePerSecond is how many more it
	// may send for each second. That is far more than heart-beats need, and reading so few
	// costs almost nothing.
	initialAllowance   = 1000
	allowancePerSecond = 100
	// lineEndsPerFrame is how many more line ends a peer may send for each frame: some may
	// follow it (STOMP 1.2, "Augmented BNF"). Known clients send one.
	lineEndsPerFrame = 10
)

// allowance limits how many line ends or receipts a peer may send. Backpressure does not
// limit them, because they contain no message that has to be stored. An unused allowance
// does not expire: a reader that was blocked for hours receives all heart-beats of that
// time at once.
type allowance struct {
	start   time.Time
	used    int64
	granted int64 // without allowancePerSecond
}

func newAllowance() allowance { return allowance{start: time.Now(), granted: initialAllowance} }

// grant increases the allowance by n.
func (a *allowance) grant(n int64) { a.granted += n }

// take uses 1 of the allowance, and reports whether the allowance was sufficient.
func (a *allowance) take() bool {
	a.used++
	return a.used <= a.granted+int64(time.Since(a.start)/(time.Second/allowancePerSecond))
}
