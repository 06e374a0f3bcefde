// Package bell wakes a goroutine that waits for a change.
package bell

// Signal wakes one goroutine, which receives from it. Rung while nobody waits, it
// wakes the next that does: ring after the change, look after the ring, and no
// change is missed. However often it is rung meanwhile, that is one ring.
type Signal chan struct{}

// New returns a bell that has not been rung.
func New() Signal { return make(Signal, 1) }

// Notify rings, and never waits.
func (b Signal) Notify() {
	select {
	case b <- struct{}{}:
	default:
	}
}
