package link

import (
	"bytes"
	"context"
	"reflect"
)

// terms live as long as a peer's state says the same about who the peer is,
// which messages are for it, and where and how to send them. A connection that
// was opened on other terms ends in good order, and another one follows.
type terms struct {
	context.Context
	end context.CancelFunc
}

func newTerms() terms {
	ctx, end := context.WithCancel(context.Background())
	return terms{ctx, end}
}

// renew replaces the peer's state by one with which there is traffic.
func (p *peer) renew(st *peerState) {
	endOld := st.takeOver(p.state.Load())
	p.set(st)
	endOld()
}

// takeOver gives st the terms of the state before it where these are still the
// same. Otherwise it returns what ends the old ones, to be called once st has
// replaced the old state.
func (st *peerState) takeOver(old *peerState) (endOld func()) {
	switch {
	case old == nil:
		st.terms = newTerms()
		return func() {}
	case old.sameTerms(st):
		st.terms = old.terms
		return func() {}
	}
	st.terms = newTerms()
	return old.terms.end
}

func (st *peerState) sameTerms(next *peerState) bool {
	// A manifest that can not be read any more is no reason to cut a connection
	// that works.
	sameStomp := next.Stomp == nil || reflect.DeepEqual(st.Stomp, next.Stomp)
	return sameStomp && st.view == next.view &&
		bytes.Equal(st.Root.Raw, next.Root.Raw) && bytes.Equal(st.SubCA.Raw, next.SubCA.Raw)
}
