// Package bell wakes a goroutine that waits for a change.
package bell

// Bell wakes one goroutine, which receives from it. Rung while nobody waits, it
// wakes the next that does: ring after the change, look after the ring, and no
// change is missed. However often it is rung meanwhile, that is one ring.
type Bell chan struct{}

// New returns a bell that has not been rung.
func New() Bell { return make(Bell, 1) }

// Ring rings, and never waits.
func (b Bell) Ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
