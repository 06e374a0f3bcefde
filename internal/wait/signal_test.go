package wait

import "testing"

// A goroutine that waits after a change is woken, also if the signal was notified before,
// and several notifications without a receiver wake it once.
func TestSignal(t *testing.T) {
	b := NewSignal()
	select {
	case <-b:
		t.Fatal("it has rung by itself")
	default:
	}
	for range 1000 {
		b.Notify() // would block if it waited for a receiver
	}
	<-b
	select {
	case <-b:
		t.Error("it has rung twice for one look")
	default:
	}
	woken := make(chan struct{})
	go func() {
		<-b
		close(woken)
	}()
	b.Notify()
	<-woken
}
