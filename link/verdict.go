package link

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/node"
	"peerlink/stomp"
)

// linkStates returns the states of the two directions of the link.
func (p *peer) linkStates(s *shared, now time.Time) (out, in LinkState) {
	files, in := p.files.current(now, 0), p.in.current(now, 0)
	switch v := files.Verdict; {
	case v == VerdictSigned && in.Verdict == VerdictNotRegistered:
		return in, in // the peer connects, so the fault is here
	case v == VerdictBrokerUnavailable && p.state.Load() != nil:
		out = files // the peer may send
	case v == VerdictUnreadable && p.state.Load() != nil:
		out = p.outState(s, now) // the link stays as it is
	case v != "":
		return files, files
	default:
		out = p.outState(s, now)
	}
	return out, p.inState(s, in, out, now)
}

// outState returns the state of sending to the peer, over all queues.
func (p *peer) outState(s *shared, now time.Time) LinkState {
	var states []LinkState
	for _, t := range p.outTrackers() {
		if st := t.current(now, s.cfg.UnconfirmedAfter); st.Verdict != "" {
			states = append(states, st)
		}
	}
	switch {
	case len(states) > 0:
		return worst(states)
	case s.receiveOnly:
		return LinkState{Verdict: VerdictElsewhere, Since: p.since, Reason: "this process only receives"}
	}
	return LinkState{Verdict: VerdictConnecting, Since: p.since}
}

// inState returns the state of receiving from the peer. in is what the connections from the peer
// have shown, and out the state of the other direction.
func (p *peer) inState(s *shared, in, out LinkState, now time.Time) LinkState {
	switch in.Verdict {
	case "", VerdictResting:
		in = p.inferIn(in, out)
	}
	switch since, throttled := p.throttled.current(now); {
	case in.Verdict.Severity() == Bad:
	case p.isQuotaFull(s):
		return LinkState{Verdict: VerdictQuotaFull, Since: p.quotaFull.observe(now),
			Reason: "the messages of the peer that no application has consumed fill its quota, or the disk is almost full: no more are accepted",
			Remedy: "see that the applications consume their messages: peerlink queue list"}
	case throttled && in.Verdict == VerdictLinked:
		return LinkState{Verdict: VerdictThrottled, Since: since, Reason: "the peer sends more messages per second than are accepted from it",
			Remedy: "nothing has to be done, all messages arrive in the end; to accept more: peerlink serve --peer-rate"}
	}
	return in
}

// isQuotaFull reports whether the broker accepts no more messages from the peer at present.
func (p *peer) isQuotaFull(s *shared) bool {
	full := s.quotas != nil && errors.Is(s.quotas.AwaitQuota(endedContext, p.id), context.Canceled)
	if !full {
		p.quotaFull.end()
	}
	return full
}

// inferIn returns the state of receiving while the peer has no connection to this node, and its last
// one, if any, has ended in good order. The peer connects only when it has something to send, so
// the other direction shows how it is.
func (p *peer) inferIn(in, out LinkState) LinkState {
	switch out.Verdict {
	case VerdictUnreachable, VerdictNotRegistered, VerdictWrongCertificate, VerdictCertificateExpired:
		in = out
		in.Reason = "the peer is not connected to this node, and the other way: " + out.Reason
		in.NextAttempt = nil
	case VerdictConnecting, VerdictElsewhere:
		if in.Verdict == "" {
			in = LinkState{Verdict: VerdictConnecting, Since: p.since, Reason: "the peer has not connected since this service started"}
		}
	default:
		if in.Verdict == "" {
			in = LinkState{Verdict: VerdictResting, Since: p.since}
		}
	}
	return in
}

// trackFiles records what follows from the peer's files, after they have been read or could not be
// applied because of err.
func (p *peer) trackFiles(err error) {
	read := p.lastContent.Load()
	var own *brokerError
	switch {
	case p.gone.Load():
		p.files.set(LinkState{Verdict: VerdictGone, Reason: "the peer's directory does not exist any more", Remedy: "put it back from a backup, or start the service anew"})
	case errors.As(err, &own):
		p.files.set(LinkState{Verdict: VerdictBrokerUnavailable, Reason: own.Error(), Remedy: brokerRemedy})
	case err != nil:
		p.files.set(LinkState{Verdict: VerdictUnreadable, Reason: err.Error(), Remedy: "peerlink check"})
	case read == nil:
	case read.Deactivated != "":
		p.files.set(LinkState{Verdict: VerdictDeactivated, Reason: "on " + excerpt.Of(read.Deactivated)})
	case read.SubCA == nil:
		p.files.set(LinkState{Verdict: VerdictSigned, Reason: "this node has no peer certificate from the peer",
			Remedy: fmt.Sprintf("ask the owner of %s for the peer certificate made there by peerlink peer sign, and run: peerlink peer register CERT", p.id)})
	case read.Suspended != nil:
		p.files.set(LinkState{Verdict: VerdictSuspended, Reason: "here, since " + describeSuspension(read.Suspended), Remedy: "peerlink peer resume " + p.id})
	default:
		p.files.clear(VerdictGone, VerdictBrokerUnavailable, VerdictUnreadable, VerdictDeactivated, VerdictSuspended, VerdictSigned)
		if p.state.Load() == nil {
			return
		}
		p.in.clear(VerdictNotRegistered)
	}
}

// describeSuspension returns the date of a suspension, and its reason if there is one.
func describeSuspension(s *node.Suspension) string {
	if s.Reason == "" {
		return s.Since
	}
	return s.Since + ": " + s.Reason
}

// madeContact records that this node has completed a handshake with a server of the peer, whose
// pinned root certificate is root.
func (p *peer) madeContact(root *x509.Certificate) {
	p.stats.madeContact()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.recordAuthenticated(root)
}

// recordAuthenticated records that the peer was authenticated by its pinned root certificate. The
// caller holds mu.
func (p *peer) recordAuthenticated(root *x509.Certificate) {
	p.authenticated = root
	p.in.clear(VerdictWrongCertificate)
}

// recordOtherRoot records that somebody was rejected whose certificate was issued by this node for
// another root key than that of root, the pinned certificate. Once the peer has shown that it has the
// pinned key, this is not recorded: then somebody else has connected, for example with an earlier key
// of the peer, and must not make the link look broken. The caller holds mu.
func (p *peer) recordOtherRoot(root *x509.Certificate) {
	if p.authenticated != nil && p.authenticated.Equal(root) {
		return
	}
	p.in.set(LinkState{Verdict: VerdictWrongCertificate,
		Reason: "somebody connects in the name of the peer with a certificate that this node has issued for another root key than the pinned one",
		Remedy: "ask the owner of " + p.id + " in person which root key is in use: if it is the pinned one (peerlink peer show " + p.id + "), there is nothing to do, since whoever has the other key is refused"})
}

// explainLoss returns the state of receiving after a connection from the peer has ended with err.
func explainLoss(err error, peer string, now time.Time) LinkState {
	var expired *certificateExpired
	var violation *stomp.ProtocolError
	switch {
	case errors.As(err, &expired):
		return explain(err, peer, now)
	case errors.As(err, &violation), errors.Is(err, errOverhead):
		return LinkState{Verdict: VerdictRefused, Reason: "a connection from the peer was ended: " + excerpt.Of(err.Error()), Remedy: "tell the owner of " + peer}
	}
	return LinkState{Verdict: VerdictUnreachable, Reason: "the connection from the peer was lost, and it has not connected again: " + describeNetworkError(err),
		Remedy: "peerlink ping " + peer}
}

// lastError returns the last error that still matters.
func (p *peer) lastError(out, in LinkState, now time.Time) (last recordedError) {
	for from, e := range p.stats.recordedErrors() {
		if e.at.After(last.at) && !p.isOver(origin(from), e.at, out, in, now) {
			last = e
		}
	}
	return last
}

// isOver reports whether the direction in which an error has occurred has worked since.
func (p *peer) isOver(from origin, at time.Time, out, in LinkState, now time.Time) bool {
	switch {
	case from == fromPeer:
		return in.Verdict.Severity() != Bad && p.in.workedSince(at, now)
	case from == directory || out.Verdict.Severity() == Bad:
		return false
	}
	for _, t := range p.outTrackers() {
		if t.workedSince(at, now) {
			return true
		}
	}
	return false
}
