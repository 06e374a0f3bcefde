package wait

import "testing"

// A goroutine that waits after a change is woken, also if the signal was notified before,
// and several notifications without a receiver wake it once.
func TestSignal(t *testing.T) {
	b := NewSignal()
	select {
	case <-b:
		t.Fatal("a new Signal is notified already")
	default:
	}
	for range 1000 {
		b.Notify() // would block if it waited for a receiver
	}
	<-b
	select {
	case <-b:
		t.Error("the signal was received twice after one notification")
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
