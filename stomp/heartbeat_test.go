package stomp

import (
	"testing"
	"time"
)

// Every value of a heart-beat header is either two bounded numbers or refused.
func TestParseHeartBeat(t *testing.T) {
	const ms = time.Millisecond
	for in, want := range map[string]HeartBeat{
		"":            {},
		"0,0":         {},
		"5000,30000":  {Send: 5000 * ms, Receive: 30000 * ms},
		"1,999999999": {Send: ms, Receive: maxHeartBeat},
		"999999999,1": {Send: maxHeartBeat, Receive: ms},
		"-1,0":        {Send: -1}, "0,-1": {Send: -1}, "1": {Send: -1}, ",": {Send: -1}, "1,2,3": {Send: -1},
		"1000000000,0": {Send: -1}, "0,99999999999999999999": {Send: -1},
		"1.5,1": {Send: -1}, " 1,1": {Send: -1}, "+1,1": {Send: -1}, "1e3,1": {Send: -1}, "x": {Send: -1},
	} {
		got, err := ParseHeartBeat(in)
		if want.Send < 0 {
			if err == nil {
				t.Errorf("%q gives %v", in, got)
				continue
			}
			protocolReason(t, err)
		} else if err != nil || got != want {
			t.Errorf("%q gives %v, %v, want %v", in, got, err, want)
		}
	}
}

// Both sides get the same result, zero turns a direction off, and no side is made to
// send more often than it has offered, whatever the other side requests.
func TestNegotiate(t *testing.T) {
	values := []time.Duration{-time.Second, 0, time.Millisecond, 5 * time.Second, 30 * time.Second, maxHeartBeat}
	for _, s1 := range values {
		for _, r1 := range values {
			for _, s2 := range values {
				for _, r2 := range values {
					a, b := HeartBeat{Send: s1, Receive: r1}, HeartBeat{Send: s2, Receive: r2}
					x, y := a.Negotiate(b), b.Negotiate(a)
					if x.Send != y.Receive || x.Receive != y.Send {
						t.Fatalf("%v with %v: one side has %v, the other %v", a, b, x, y)
					}
					if off := s1 <= 0 || r2 <= 0; off != (x.Send == 0) {
						t.Fatalf("%v with %v: %v", a, b, x)
					}
					if x.Send != 0 && (x.Send < s1 || x.Send < r2) {
						t.Fatalf("%v with %v: %v is too often", a, b, x)
					}
				}
			}
		}
	}
}

// The header contains the configured values, in a form that every server can read.
func TestHeartBeatString(t *testing.T) {
	for want, h := range map[string]HeartBeat{
		"5000,30000":  HeartBeat{}.orDefault(),
		"0,0":         HeartBeat{Send: -1, Receive: -1}.orDefault(),
		"0,1":         {Receive: time.Nanosecond},
		"1500,0":      HeartBeat{Send: 1500 * time.Millisecond}.orDefault(),
		"999999999,2": {Send: 1 << 62, Receive: time.Millisecond + 1},
	} {
		if got := h.String(); got != want {
			t.Errorf("%+v gives %s, want %s", h, got, want)
		}
	}
}
