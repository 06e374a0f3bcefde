package local

// bell wakes one goroutine. Rung while nobody waits, it wakes the next that
// does: ring after the change, look after the ring, and no change is missed.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default:
	}
}
