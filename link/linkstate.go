package link

import (
	"fmt"
	"time"
)

// LinkState is the state of a link in one direction, in the terms of an operator.
type LinkState struct {
	Verdict     Verdict    `json:"verdict"`
	Since       time.Time  `json:"since"`            // when the verdict began to hold
	Reason      string     `json:"reason,omitempty"` // in plain words; may quote the peer
	Remedy      string     `json:"remedy,omitempty"` // what the operator can do, as a command where there is one
	NextAttempt *time.Time `json:"next_attempt,omitempty"`
}

func (s LinkState) utc() LinkState {
	s.Since, s.NextAttempt = s.Since.UTC(), utcOrNil(s.NextAttempt)
	return s
}

// Verdict says in one word whether messages pass through a link in one direction. Programs
// read the values: they stay, new ones may be added.
type Verdict string

// The verdicts. Those that apply to one direction only say so: out is the direction in which
// this node sends, in the one in which the peer sends to this node.
const (
	// VerdictLinked: there is a connection, on which data or heart-beats arrive from the peer.
	VerdictLinked Verdict = "linked"
	// VerdictResting: there is no connection because there is nothing to send, and the last
	// contact was good.
	VerdictResting Verdict = "resting"
	// VerdictElsewhere: another process of this node serves this direction, and knows its state.
	VerdictElsewhere Verdict = "elsewhere"
	// VerdictConnecting: a connection is being made, and the attempt before it, if any, did not fail.
	VerdictConnecting Verdict = "connecting"
	// VerdictUnreachable: no server of the peer can be connected to, or the connection was lost.
	VerdictUnreachable Verdict = "unreachable"
	// VerdictRefused: the receiver has refused the connection, or a message.
	VerdictRefused Verdict = "refused"
	// VerdictSigned: this node has signed the peer's root key, and has no certificate from the
	// peer yet.
	VerdictSigned Verdict = "signed"
	// VerdictNotRegistered: one of the two nodes has not registered the peer certificate that
	// the other one has issued to it, or does not know the other one.
	VerdictNotRegistered Verdict = "not_registered"
	// VerdictWrongCertificate: one side does not accept the certificates of the other.
	VerdictWrongCertificate Verdict = "wrong_certificate"
	// VerdictCertificateExpired: a certificate that the connection needs has expired.
	VerdictCertificateExpired Verdict = "certificate_expired"
	// VerdictClockDiffers: the clocks of the two nodes differ too much.
	VerdictClockDiffers Verdict = "clock_differs"
	// VerdictUnconfirmed: messages were sent, and the peer has confirmed nothing for
	// unconfirmedAfter (out).
	VerdictUnconfirmed Verdict = "unconfirmed"
	// VerdictCannotSetAside: so many messages can be neither sent nor made dead letters that the
	// broker holds no more of them, and nothing is sent from the queue (out).
	VerdictCannotSetAside Verdict = "can_not_set_aside"
	// VerdictQuotaFull: the messages of the peer that no application has consumed fill the
	// peer's quota here, or the disk is almost full, so no more are accepted (in).
	VerdictQuotaFull Verdict = "quota_full"
	// VerdictThrottled: the peer sends more than this node accepts per second (in).
	VerdictThrottled Verdict = "throttled"
	// VerdictBrokerUnavailable: this node's broker cannot be used.
	VerdictBrokerUnavailable Verdict = "broker_unavailable"
	// VerdictDeactivated: the peer has been deactivated here.
	VerdictDeactivated Verdict = "deactivated"
	// VerdictSuspended: the owner of one of the two nodes has suspended the link.
	VerdictSuspended Verdict = "suspended"
	// VerdictUnreadable: the peer's files in the node's directory cannot be used.
	VerdictUnreadable Verdict = "unreadable"
	// VerdictGone: the peer's files do not exist any more.
	VerdictGone Verdict = "gone"
)

// verdicts describes each [Verdict]: how severe it is, and the words with which a sentence
// about it begins.
var verdicts = map[Verdict]struct {
	severity Severity
	words    string
}{
	VerdictLinked:             {Good, "linked"},
	VerdictResting:            {Idle, "resting"},
	VerdictElsewhere:          {Idle, "served by another process of this node"},
	VerdictDeactivated:        {Idle, "deactivated"},
	VerdictConnecting:         {Warn, "connecting"},
	VerdictSuspended:          {Warn, "suspended"},
	VerdictSigned:             {Warn, "signed only"},
	VerdictThrottled:          {Warn, "throttled"},
	VerdictGone:               {Warn, "gone from the node's directory"},
	VerdictUnreachable:        {Bad, "unreachable"},
	VerdictRefused:            {Bad, "refused"},
	VerdictNotRegistered:      {Bad, "not registered"},
	VerdictWrongCertificate:   {Bad, "certificate not accepted"},
	VerdictCertificateExpired: {Bad, "certificate expired"},
	VerdictClockDiffers:       {Bad, "clocks differ"},
	VerdictUnconfirmed:        {Bad, "nothing confirmed"},
	VerdictCannotSetAside:     {Bad, "messages can not be set aside"},
	VerdictQuotaFull:          {Bad, "quota full here"},
	VerdictBrokerUnavailable:  {Bad, "broker unavailable"},
	VerdictUnreadable:         {Bad, "files unusable"},
}

// Severity orders verdicts. The smallest value is the worst.
type Severity int

// The severities.
const (
	Bad  Severity = iota // messages do not pass until somebody does something, or a fault ends
	Warn                 // messages do not pass for now, or more slowly
	Idle                 // nothing passes, and nothing has to
	Good                 // messages pass
)

// String returns "bad", "warn", "idle" or "good".
func (s Severity) String() string {
	if s < Bad || s > Good {
		return fmt.Sprintf("Severity(%d)", int(s))
	}
	return [...]string{"bad", "warn", "idle", "good"}[s]
}

// Severity returns how severe the verdict is. A verdict of a newer program, which this one
// does not know, counts as [Warn].
func (v Verdict) Severity() Severity {
	if d, ok := verdicts[v]; ok {
		return d.severity
	}
	return Warn
}

// Words returns the verdict in words, such as "not registered".
func (v Verdict) Words() string {
	if d, ok := verdicts[v]; ok {
		return d.words
	}
	return string(v)
}

// Sentence returns the state at the time now as an operator reads it: "linked for 3 days",
// "resting, last contact 3 h ago", "unreachable for 2 h 14 min: connection refused by
// 203.0.113.9:1234". lastContact is that of the [PeerStatus]. The sentence may quote the peer.
func (s LinkState) Sentence(now time.Time, lastContact *time.Time) string {
	text := s.Verdict.Words()
	switch {
	case s.Verdict == VerdictResting && lastContact != nil:
		text += ", last contact " + roughly(now.Sub(*lastContact)) + " ago"
	case !s.Since.IsZero():
		text += " for " + roughly(now.Sub(s.Since))
	}
	if s.Reason != "" {
		text += ": " + s.Reason
	}
	return text
}

// roughly formats a duration with one unit, or with hours and minutes.
func roughly(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d >= 2*day:
		return fmt.Sprintf("%d days", d/day)
	case d%time.Hour >= time.Minute:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
}
