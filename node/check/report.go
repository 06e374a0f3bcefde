package check

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Severity is the severity of a [Finding].
type Severity int

// The severities in ascending order; see the package comment.
const (
	Note Severity = iota + 1
	Warning
	Problem
)

var severities = map[Severity]string{Note: "note", Warning: "warning", Problem: "problem"}

// String returns "note", "warning" or "problem".
func (s Severity) String() string {
	if name, ok := severities[s]; ok {
		return name
	}
	return fmt.Sprintf("check.Severity(%d)", int(s))
}

// MarshalText returns the same text as String.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is an error or irregularity in a node's directory.
type Finding struct {
	Severity Severity `json:"severity"`
	Rule     Rule     `json:"rule"`
	// Subject is the file or folder concerned, slash-separated and relative to the
	// node's directory; for a file outside of it, and for a server's certificate and key,
	// the path given in the [Options].
	Subject string `json:"subject"`
	// Text describes the error, the expected content, and the remedy.
	Text string `json:"text"`
	// Repairable means that [node.Dir.Repair] can repair it.
	Repairable bool `json:"repairable,omitempty"`
}

// String returns the finding as one readable line.
func (f Finding) String() string {
	return fmt.Sprintf("%v: %s: %s (%s)", f.Severity, f.Subject, f.Text, f.Rule)
}

// PeerState is the state of the peering with one peer.
type PeerState struct {
	ID string `json:"id"`
	// Name is the name that the node's owner has given to the peer; empty if there is none.
	Name string `json:"name,omitempty"`
	// Type is the peer's type, such as "creditors-agent"; empty if unknown.
	Type string `json:"type,omitempty"`
	// State is "signed", "registered", "active", "suspended" or "deactivated", see [node.Peer.State].
	State string `json:"state"`
	// WaitingFor describes the step that is missing before messages can be exchanged;
	// empty if no step is missing, or if the peer is deactivated.
	WaitingFor string `json:"waiting_for,omitempty"`
	// Problems is the number of findings with severity [Problem] about the peer's files.
	Problems int `json:"problems"`
}

// Expiry is the end of one certificate.
type Expiry struct {
	What     string    `json:"what"` // the certificate's file, as in [Finding.Subject]
	NotAfter time.Time `json:"not_after"`
	// DaysLeft is the number of whole days until the end, negative after the end.
	DaysLeft int `json:"days_left"`
	// WithinDays is the smallest of the thresholds 60, 30, 7 and 1 that DaysLeft has
	// reached, or 0 if it has reached none. A monitoring program can alert once when
	// the value changes.
	WithinDays int `json:"within_days,omitempty"`
}

// Report is the result of [Run].
type Report struct {
	// ID and Type are those of the node; empty if unknown.
	ID   string `json:"id"`
	Type string `json:"type"`
	// Findings are sorted by severity, the worst first, then by subject.
	Findings []Finding `json:"findings"`
	// Peers are sorted by ID.
	Peers []PeerState `json:"peers"`
	// Expiries are those of the certificates in use, the earliest first. Certificates of
	// deactivated peers are excluded.
	Expiries []Expiry `json:"expiries"`
}

// OK reports whether there is no [Problem].
func (r *Report) OK() bool { return r.Count(Problem) == 0 }

// Count returns the number of findings of one severity.
func (r *Report) Count(s Severity) int {
	n := 0
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// finish counts the problems of each peer and sorts the lists. Empty lists become "[]"
// in JSON, not "null".
func (r *Report) finish() {
	r.Findings = append([]Finding{}, r.Findings...)
	r.Peers = append([]PeerState{}, r.Peers...)
	r.Expiries = append([]Expiry{}, r.Expiries...)
	problems := make(map[string]int) // number of problems by node ID
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
