package costtest

import (
	"testing"
)

// recorder is a testing.TB that counts failures.
type recorder struct {
	testing.TB
	failed int
}

func (r *recorder) Helper()               {}
func (r *recorder) Errorf(string, ...any) { r.failed++ }

// kept makes allocations escape to the heap: otherwise the compiler could omit them.
var kept []byte

// check fails the test once for a parser that exceeds one of the limits, and not at all for a parser
// within both.
func TestCheck(t *testing.T) {
	for _, tt := range []struct {
		name  string
		parse func()
		want  int
	}{
		{"cheap", func() { kept = make([]byte, maxBytes/2) }, 0},
		{"memory", func() { kept = make([]byte, maxBytes+1<<20) }, 1},
		{"memory in small pieces", func() {
			for range maxBytes/1024 + 1024 {
				kept = make([]byte, 1024)
			}
		}, 1},
		{"time", func() {
			for start := Spent(); Spent()-start <= maxTime; {
			}
		}, 1},
	} {
		r := &recorder{TB: t}
		check(r, tt.name, tt.parse)
		if r.failed != tt.want {
			t.Errorf("%s: %d failures, want %d", tt.name, r.failed, tt.want)
		}
	}
}
