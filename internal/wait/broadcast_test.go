package wait

import (
	"sync"
	"testing"
)

// A notification wakes all goroutines that waited for it, and is not kept for those that
// begin to wait later.
func TestBroadcast(t *testing.T) {
	var b Broadcast
	b.Notify() // no goroutine waits
	first, second := b.Next(), b.Next()
	select {
	case <-first:
		t.Fatal("woken by a notification from before")
	default:
	}
	var wg sync.WaitGroup
	for _, next := range []<-chan struct{}{first, second} {
		wg.Go(func() { <-next })
	}
	b.Notify()
	wg.Wait()
	select {
	case <-b.Next():
		t.Error("woken again without another notification")
	default:
	}
}
