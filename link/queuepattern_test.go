package link

import (
	"errors"
	"strings"
	"testing"
)

// A pattern is accepted only if it gives every queue of every peer its own name. The
// default gives the names in the examples of the specification.
func TestQueuePattern(t *testing.T) {
	for _, tt := range []struct{ pattern, want string }{
		{string(DefaultQueuePattern), "peer.1234abcd.7"},
		{"{n}-to-{node-id}!", "7-to-1234abcd!"},
		{"{node-id}_{n}", "1234abcd_7"},
		{"", ""},
		{"peer", ""},
		{"aa.{node-id}", "aa.1234abcd.7"}, // as in the Compose files of the reference
		{"peer.{n}", ""},
		{"{node-id}{n}", ""},  // a1 and 2 would be the same as a and 12
		{"{node-id}1{n}", ""}, // as well
		{"{n}aa{node-id}", ""},
		{"{n}.{node-id}{n}", ""}, // twice
		{"{n}.{node-id}.{host}", ""},
		{"{n}.{node-id}.}", ""},
		{"{n}.{node-id}" + strings.Repeat("x", 200), ""},
	} {
		p, err := ParseQueuePattern(tt.pattern)
		if tt.want == "" {
			if !errors.Is(err, errQueuePattern) {
				t.Errorf("%.50q: got %v, want ErrQueuePattern", tt.pattern, err)
			}
			continue
		}
		if err != nil || p.Name("1234abcd", 7) != tt.want {
			t.Errorf("%q: got %q, %v, want %q", tt.pattern, p.Name("1234abcd", 7), err, tt.want)
		}
	}
}

// Without {n}, a peer's first queue has the name that the pattern gives.
func TestQueuePatternWithoutNumber(t *testing.T) {
	p, err := ParseQueuePattern("aa.{node-id}")
	if err != nil || p.Name("1234abcd", 0) != "aa.1234abcd" {
		t.Errorf("got %q, %v", p.Name("1234abcd", 0), err)
	}
}
