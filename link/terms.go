package link

import (
	"bytes"
	"context"
	"reflect"
)

// generation live as long as a peer's state says the same about who the peer is,
// which messages are for it, and where and how to send them. A connection that
// was opened on other terms ends in good order, and another one follows.
type generation struct {
	context.Context
	end context.CancelFunc
}

func newGeneration() generation {
	ctx, end := context.WithCancel(context.Background())
	return generation{ctx, end}
}

// replaceState replaces the peer's state by one with which there is traffic.
func (p *peer) replaceState(st *peerState) {
	endOld := st.inheritGeneration(p.state.Load())
	p.setState(st)
	endOld()
}

// inheritGeneration gives st the terms of the state before it where these are still the
// same. Otherwise it returns what ends the old ones, to be called once st has
// replaced the old state.
func (st *peerState) inheritGeneration(old *peerState) (endOld func()) {
	switch {
	case old == nil:
		st.generation = newGeneration()
		return func() {}
	case old.sameGeneration(st):
		st.generation = old.generation
		return func() {}
	}
	st.generation = newGeneration()
	return old.generation.end
}

func (st *peerState) sameGeneration(next *peerState) bool {
	// A manifest that can not be read any more is no reason to cut a connection
	// that works.
	sameStomp := next.Stomp == nil || reflect.DeepEqual(st.Stomp, next.Stomp)
	return sameStomp && st.view == next.view &&
		bytes.Equal(st.Root.Raw, next.Root.Raw) && bytes.Equal(st.SubCA.Raw, next.SubCA.Raw)
}
