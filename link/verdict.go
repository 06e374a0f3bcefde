package link

import "time"

// linkStates returns the states of the two directions of the link, from what is in st.
func (p *peer) linkStates(st *PeerStatus, now time.Time) (out, in LinkState) {
	if v, ok := directoryVerdict(st.State); ok {
		s := LinkState{Verdict: v, Since: p.since}
		return s, s
	}
	out, in = LinkState{Verdict: VerdictConnecting, Since: p.since}, LinkState{Verdict: VerdictConnecting, Since: p.since}
	for _, c := range st.Connections {
		if c.Direction == Sending {
			out = LinkState{Verdict: VerdictLinked, Since: c.Since}
		} else {
			in = LinkState{Verdict: VerdictLinked, Since: c.Since}
		}
	}
	return out, in
}

// directoryVerdict returns the verdict that follows from [PeerStatus].State alone, if any.
func directoryVerdict(state string) (v Verdict, ok bool) {
	switch state {
	case "deactivated":
		return VerdictDeactivated, true
	case "signed":
		return VerdictSigned, true
	case "unreadable":
		return VerdictUnreadable, true
	case "gone":
		return VerdictGone, true
	}
	return "", false
}
