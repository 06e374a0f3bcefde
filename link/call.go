package link

// A peer that could not be reached is tried again after pauses of up to a minute. When
// it is back, it dials us, often before the pause is over: then there is nothing
// to wait for. (A peer that answers, and then refuses or fails, has had its
// chance: if its calls ended a pause, two nodes in trouble would keep each other
// from resting.)

// nextConnect returns a channel that is closed when the peer next connects to us.
func (p *peer) nextConnect() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.connected
}

// notifyConnect wakes whoever waits for the peer to be there.
func (p *peer) notifyConnect() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.connected)
	p.connected = make(chan struct{})
}
