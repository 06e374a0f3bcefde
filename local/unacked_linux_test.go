package local

import (
	"math/rand/v2"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// threadTime returns the processor time that this thread has used.
func threadTime(t *testing.T) time.Duration {
	t.Helper()
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &now); err != nil {
		t.Fatal(err)
	}
	return time.Duration(now.Nano())
}

// The processor time for acknowledging all of the most messages that a connection may hold, one by one in
// any order, is about proportional to their number. (The limit is some 20 times as long as it takes;
// a time proportional to the square of the number would be longer.)
func TestAcknowledgeInAnyOrder(t *testing.T) {
	const messages, limit = 2 * maxPrefetch, 4 * time.Second
	orders := map[string]func([]uint64){
		"forward":  func([]uint64) {},
		"backward": slices.Reverse[[]uint64],
		"random": func(tags []uint64) {
			rand.New(rand.NewPCG(1, 1)).Shuffle(len(tags), func(i, k int) { tags[i], tags[k] = tags[k], tags[i] })
		},
	}
	for how, by := range map[string]func(tag uint64) find{
		"by ack":        tagged,
		"by message-id": func(tag uint64) find { return named(idOf(tag)) },
	} {
		for order, arrange := range orders {
			t.Run(order+" "+how, func(t *testing.T) {
				runtime.LockOSThread()
				defer runtime.UnlockOSThread()
				u := holding(messages)
				tags := []uint64{}
				for tag := uint64(1); tag <= messages; tag++ {
					tags = append(tags, tag)
				}
				arrange(tags)
				begin := threadTime(t)
				for i, tag := range tags {
					if len(u.remove(by(tag), false)) != 1 {
						t.Fatalf("message %d is not held", tag)
					}
					if i%1000 == 0 && threadTime(t)-begin > limit {
						t.Fatalf("%d of %d acknowledgements took %v", i+1, len(tags), limit)
					}
				}
				if cap(u.held) > 2*maxRemoved || len(u.byID) > 0 {
					t.Errorf("space for %d messages and %d message-ids is left", cap(u.held), len(u.byID))
				}
			})
		}
	}
}
