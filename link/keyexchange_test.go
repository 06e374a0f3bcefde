package link

import (
	"errors"
	"fmt"
	"testing"
	"time"
)

// After two consecutive handshakes that timed out, one is tried that needs small
// packets only. When it succeeds, that is reported once, and repeated for an hour.
// While all time out, both kinds are tried by turns. Other errors are unrelated to the
// size of packets.
func TestClassicalKeyExchange(t *testing.T) {
	late := errors.Join(errors.New("another server"), fmt.Errorf("%w within 5s", errTLSTimeout))
	refused := errors.New("refused")
	now := time.Now()
	s := new(packetSizeWatch)
	for i, step := range []struct {
		classical bool // what must be offered
		err       error
		found     bool
		pass      time.Duration
	}{
		{false, late, false, 0},
		{false, nil, false, 0},
		{false, late, false, 0},
		{false, refused, false, 0},
		{false, late, false, 0},
		{true, late, false, 0},
		{false, late, false, 0},
		{false, late, false, 0},
		{true, nil, true, 0},
		{true, nil, false, time.Minute},
		{true, refused, false, time.Hour},
		{false, nil, false, 0},
		{false, late, false, 0},
		{false, late, false, 0},
		{true, nil, true, 0},
		{true, late, false, 0},
		{false, nil, false, 0},
	} {
		groups := s.groups(now)
		if (groups != nil) != step.classical {
			t.Fatalf("step %d: offers %v", i, groups)
		}
		if found := s.note(groups, step.err, now); found != step.found {
			t.Errorf("step %d: found %v", i, found)
		}
		now = now.Add(step.pass)
	}
}
