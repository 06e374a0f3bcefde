package link

import (
	"fmt"
	"testing"

	"peerlink/broker"
)

// Refusals are counted by type and body of a message, whatever its tag, until the
// message is forgotten. Only those of the last few messages are kept.
func TestRefusals(t *testing.T) {
	r := newRefusals()
	message := func(typ, body string) fingerprint {
		return r.fingerprint(&broker.Outgoing{Type: typ, Body: []byte(body)})
	}
	bad := message("T", "bad")
	for want := 1; want <= maxRefusals; want++ {
		if got := r.add(message("T", "bad"), false); got != want {
			t.Errorf("refused %d times, want %d", got, want)
		}
	}
	for _, other := range []fingerprint{message("T", "good"), message("U", "bad"), message("Tb", "ad")} {
		if n, _ := r.count(other); n != 0 {
			t.Errorf("another message was refused %d times", n)
		}
	}
	r.forget(bad)
	if n, _ := r.count(bad); n != 0 {
		t.Errorf("forgotten, but refused %d times", n)
	}

	r.add(bad, true)
	if _, early := r.count(bad); !early {
		t.Error("not known to have been refused for the time")
	}
	for n := range 10 * maxRefusedMessages {
		r.add(message("T", fmt.Sprint(n)), false)
		r.add(bad, true) // refused again and again: stays
	}
	if n, _ := r.count(bad); n != 1+10*maxRefusedMessages {
		t.Errorf("refused %d times, want %d", n, 1+10*maxRefusedMessages)
	}
	if n, _ := r.count(message("T", "0")); n != 0 || len(r.messages) != maxRefusedMessages {
		t.Errorf("the first is remembered with %d, and %d messages are, want %d", n, len(r.messages), maxRefusedMessages)
	}
}
