package link

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/stomp"
)

// Refusals are counted by type and body of a message, whatever its tag, until the
// message is forgotten. Only those of the last few messages are kept.
func TestRefusals(t *testing.T) {
	r, now := newRefusals(), time.Now()
	message := func(typ, body string) fingerprint {
		return r.fingerprint(&broker.Outgoing{Type: typ, Body: []byte(body)})
	}
	bad := message("T", "bad")
	for want := 1; want <= maxRefusals; want++ {
		if got, _ := r.add(message("T", "bad"), false, now); got != want {
			t.Errorf("refused %d times, want %d", got, want)
		}
	}
	for _, other := range []fingerprint{message("T", "good"), message("U", "bad"), message("Tb", "ad")} {
		if n, _ := r.count(other, now); n != 0 {
			t.Errorf("another message was refused %d times", n)
		}
	}
	r.forget(bad)
	if n, _ := r.count(bad, now); n != 0 {
		t.Errorf("forgotten, but refused %d times", n)
	}

	r.add(bad, true, now)
	if _, early := r.count(bad, now); !early {
		t.Error("not known to have been refused for the time")
	}
	for n := range 10 * maxRefusedMessages {
		r.add(message("T", fmt.Sprint(n)), false, now)
		r.add(bad, true, now) // refused repeatedly: stays
	}
	if n, _ := r.count(bad, now); n != 1+10*maxRefusedMessages {
		t.Errorf("refused %d times, want %d", n, 1+10*maxRefusedMessages)
	}
	if n, _ := r.count(message("T", "0"), now); n != 0 || len(r.messages) != maxRefusedMessages {
		t.Errorf("the first is remembered with %d, and %d messages are, want %d", n, len(r.messages), maxRefusedMessages)
	}
}

// A peer that refuses a message for its timestamp is given a day to correct its clock. Then
// the message counts as refused for another reason, also if the peer still gives that one.
func TestRefusedForTheTimestamp(t *testing.T) {
	r, start := newRefusals(), time.Now()
	m := r.fingerprint(&broker.Outgoing{Type: "T", Body: []byte("early")})
	for _, step := range []struct {
		after time.Duration
		says  bool // that the timestamp is in the future
		early bool
	}{
		{0, true, true},
		{time.Hour, false, false},
		{2 * time.Hour, true, true},
		{25 * time.Hour, true, true},
		{26 * time.Hour, true, false},
		{50 * time.Hour, true, false},
	} {
		now := start.Add(step.after)
		if _, early := r.add(m, step.says, now); early != step.early {
			t.Errorf("after %v: early is %v, want %v", step.after, early, step.early)
		}
		if _, early := r.count(m, now); early != step.early {
			t.Errorf("counted after %v: early is %v, want %v", step.after, early, step.early)
		}
	}
}

// A peer that refuses the same message again gives no reason to begin with short pauses
// anew, however long it does so; its first refusal of another message does. That the clocks
// may differ is logged once for each message.
func TestRetrySoonAfterFirstRefusal(t *testing.T) {
	t.Parallel()
	var log strings.Builder
	sd := &sender{s: newShared(Config{}), peer: new(peer), refusals: newRefusals()}
	early := &stomp.ServerError{MessageNumber: 1, Message: "The message timestamp is 8000 seconds in the future."}
	for _, print := range []fingerprint{1, 2} {
		for n := range 2 * maxRefusals {
			se := &session{sender: sd, log: slog.New(slog.NewTextHandler(&log, nil))}
			se.addSent(sentMessage{tag: 1, fp: print})
			se.handleRefusal(t.Context(), nil, early) // it is not set aside
			if want := n == 0; se.retrySoon != want {
				t.Errorf("message %d, refusal %d: retrySoon is %v, want %v", print, n+1, se.retrySoon, want)
			}
		}
		if got := strings.Count(log.String(), "until the clocks agree"); got != int(print) {
			t.Errorf("after message %d there are %d log entries:\n%s", print, got, &log)
		}
	}
}
