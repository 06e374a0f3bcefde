package doctor

import (
	"fmt"
	"slices"

	"peerlink/internal/excerpt"
)

// maxDetail bounds the texts of a check, in bytes.
const maxDetail = 2_000

// section collects the checks about one thing. It knows which have failed, so that those which need
// them are skipped.
type section struct {
	parent *section // whose failures count, too; nil if there is none
	about  string   // the ID of the peer that it is about; "" for the node
	checks []Check
	broken []string // the names of the checks that have failed or were skipped
}

func newSection(parent *section, peer string) *section {
	return &section{parent: parent, about: peer}
}

func (s *section) add(name, subject string, state State, detail, remedy string) {
	s.checks = append(s.checks, Check{
		Name: name, Subject: subject, OK: state != Failed, State: state,
		Detail: excerpt.Limit(detail, maxDetail), Remedy: excerpt.Limit(remedy, maxDetail), Peer: s.about,
	})
	if state == Failed || state == Skipped {
		s.broken = append(s.broken, name)
	}
}

func (s *section) pass(name, subject, detail string) { s.add(name, subject, Passed, detail, "") }
func (s *section) warn(name, subject, detail, remedy string) {
	s.add(name, subject, Warning, detail, remedy)
}
func (s *section) fail(name, subject, detail, remedy string) {
	s.add(name, subject, Failed, detail, remedy)
}

// skip adds a skipped check, and returns true, if one of the checks that it needs has failed or was skipped.
func (s *section) skip(name, subject string, needs ...string) bool {
	for _, need := range needs {
		if s.isBroken(need) {
			s.add(name, subject, Skipped, fmt.Sprintf("needs the check %q, which has not passed", need), "")
			return true
		}
	}
	return false
}

// skipAll skips checks because need has failed.
func (s *section) skipAll(subject, need string, names ...string) {
	for _, name := range names {
		s.skip(name, subject, need)
	}
}

func (s *section) isBroken(name string) bool {
	return s != nil && (slices.Contains(s.broken, name) || s.parent.isBroken(name))
}

// anyFailed reports whether a check of this section has failed.
func (s *section) anyFailed() bool {
	return slices.ContainsFunc(s.checks, func(c Check) bool { return c.State == Failed })
}
