package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity is how much a [Finding] matters.
type Severity int

// The severities, see the package comment.
const (
	Note Severity = iota + 1
	Warning
	Problem
)

var severities = map[Severity]string{Note: "note", Warning: "warning", Problem: "problem"}

// String is "note", "warning" or "problem".
func (s Severity) String() string {
	if name, ok := severities[s]; ok {
		return name
	}
	return fmt.Sprintf("check.Severity(%d)", int(s))
}

// MarshalText writes the severity as String does.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is something that is not as it should be.
type Finding struct {
	Severity Severity `json:"severity"`
	Rule     Rule     `json:"rule"`
	// Subject is the file or folder that is meant, relative to the node's
	// directory and with slashes; a server certificate is named as it was given
	// in the [Options].
	Subject string `json:"subject"`
	// Text says what is wrong, what was expected, and what to do about it.
	Text string `json:"text"`
	// Repairable means that [node.Dir.Repair] puts it right.
	Repairable bool `json:"repairable,omitempty"`
}

// String is a line for people.
func (f Finding) String() string {
	return fmt.Sprintf("%v: %s: %s (%s)", f.Severity, f.Subject, f.Text, f.Rule)
}

// PeerState is how far the peering with one peer has come.
type PeerState struct {
	ID string `json:"id"`
	// Type is the peer's type, as "creditors-agent"; empty if it can not be told.
	Type string `json:"type,omitempty"`
	// State is "signed", "registered", "active" or "deactivated", see [node.Peer.State].
	State string `json:"state"`
	// WaitingFor says what has to happen before there can be traffic; empty if
	// nothing has to, or nothing can.
	WaitingFor string `json:"waiting_for,omitempty"`
	// Problems counts the findings of that severity about the peer's files.
	Problems int `json:"problems"`
}

// Expiry is the end of one certificate.
type Expiry struct {
	What     string    `json:"what"` // its file, as in [Finding.Subject]
	NotAfter time.Time `json:"not_after"`
	// DaysLeft counts whole days; it is negative for what has ended.
	DaysLeft int `json:"days_left"`
	// WithinDays is the smallest of 60, 30, 7 and 1 that DaysLeft has come down
	// to, for those who want to be told once at each; 0 if it is further off.
	WithinDays int `json:"within_days,omitempty"`
}

// Report is what [Run] has found out.
type Report struct {
	// ID and Type are the node's; empty if they can not be told.
	ID   string `json:"id"`
	Type string `json:"type"`
	// Findings are sorted by severity, the worst first, then by subject.
	Findings []Finding `json:"findings"`
	// Peers are sorted by ID.
	Peers []PeerState `json:"peers"`
	// Expiries are sorted, the earliest first. Certificates of deactivated peers
	// are not among them.
	Expiries []Expiry `json:"expiries"`
}

// OK reports whether there is no [Problem].
func (r *Report) OK() bool { return r.Count(Problem) == 0 }

// Count counts the findings of one severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// finish counts and sorts. Empty lists become "[]" in JSON, not "null".
func (r *Report) finish() {
	r.Findings = append([]Finding{}, r.Findings...)
	r.Peers = append([]PeerState{}, r.Peers...)
	r.Expiries = append([]Expiry{}, r.Expiries...)
	problems := make(map[string]int) // by node ID
	for _, f := range r.Findings {
		if rest, ok := strings.CutPrefix(f.Subject, "peers/"); ok && f.Severity == Problem {
			id, _, _ := strings.Cut(rest, "/")
			problems[id]++
		}
	}
	for i := range r.Peers {
		r.Peers[i].Problems = problems[r.Peers[i].ID]
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int {
		return cmp.Or(-cmp.Compare(a.Severity, b.Severity), cmp.Compare(a.Subject, b.Subject))
	})
	slices.SortStableFunc(r.Expiries, func(a, b Expiry) int {
		return cmp.Or(a.NotAfter.Compare(b.NotAfter), cmp.Compare(a.What, b.What))
	})
}
