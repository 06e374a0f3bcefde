package local

import (
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strconv"
	"testing"

	"peerlink/stomp"
)

// idOf returns the message-id of the message with this tag in the tests of unacked.
func idOf(tag uint64) string { return fmt.Sprintf("1j2t7ya8ddq9x-%08d", tag) }

// holding returns an unacked with n messages, of tags 1 to n.
func holding(n int) *unacked {
	u := newUnacked(n)
	for tag := uint64(1); tag <= uint64(n); tag++ {
		u.add(held{tag: tag, seq: tag, id: idOf(tag)})
	}
	return u
}

// Whatever is removed and restored, in whatever order, an unacked has the messages that were added
// and not removed, finds them by tag and by message-id, and no others.
func TestUnacked(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		u, last := newUnacked(1000), uint64(0)
		want := map[uint64]bool{}
		var aside []held // removed, and to be restored
		for range 400 {
			tag := 1 + r.Uint64N(last+1)
			message := tagged(tag)
			if r.IntN(2) == 0 {
				message = named(idOf(tag))
			}
			switch op := r.IntN(8); {
			case op < 3:
				last++
				u.add(held{tag: last, seq: last, id: idOf(last)})
				want[last] = true
			case op < 7:
				cumulative := r.IntN(40) == 0
				removed := u.remove(message, cumulative)
				var expected []uint64
				for before := uint64(1); before <= tag && want[tag]; before++ {
					if want[before] && (cumulative || before == tag) {
						expected = append(expected, before)
					}
				}
				if got := seqsOf(removed); !slices.Equal(got, expected) {
					t.Fatalf("seed %d: remove %d, cumulative %v: got %v, expected %v", seed, tag, cumulative, got, expected)
				}
				for _, h := range removed {
					if h.id != idOf(h.tag) || h.removed {
						t.Fatalf("seed %d: removed %+v", seed, h)
					}
					delete(want, h.tag)
				}
				if r.IntN(2) == 0 {
					aside = append(aside, removed...)
				}
			case r.IntN(10) == 0:
				r.Shuffle(len(aside), func(i, k int) { aside[i], aside[k] = aside[k], aside[i] })
				u.restore(aside)
				for _, h := range aside {
					want[h.tag] = true
				}
				aside = nil
			}
		}
		if len(want) == 0 {
			continue
		}
		all := []uint64{}
		for tag := range want {
			all = append(all, tag)
		}
		slices.Sort(all)
		if got := seqsOf(u.remove(tagged(all[len(all)-1]), true)); !slices.Equal(got, all) {
			t.Fatalf("seed %d: left are %v, expected %v", seed, got, all)
		}
	}
}

// ABORT of a transaction with many ACKs copies the held messages once, not once for each ACK.
func TestAbortIsLinear(t *testing.T) {
	s := newSession(&Door{bounds: defaultBounds()}, nil, quiet())
	sub := &subscription{subscribeOptions: subscribeOptions{key: subscriptionKey{id: "0"}, ack: AckIndividual}, unacked: holding(maxPrefetch)}
	s.subscriptions[sub.key] = sub
	handle := func(command string, nameValue ...string) {
		t.Helper()
		if err := s.handle(stomp.NewFrame(command, append(nameValue, "transaction", "t")...), &operation{session: s}); err != nil {
			t.Fatal(err)
		}
	}
	handle("BEGIN")
	for tag := maxPrefetch; tag > maxPrefetch/3; tag-- { // so many that the others are the minority
		handle("ACK", "id", strconv.Itoa(tag)+"@0")
	}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	handle("ABORT")
	runtime.ReadMemStats(&after)
	if bytes := after.TotalAlloc - before.TotalAlloc; bytes > 64<<20 {
		t.Errorf("ABORT has allocated %d bytes", bytes)
	}
	if got := sub.unacked.remove(tagged(maxPrefetch), true); len(got) != maxPrefetch {
		t.Errorf("after ABORT, %d messages are held, expected %d", len(got), maxPrefetch)
	}
}
