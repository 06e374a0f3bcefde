package wait

import "testing"

// Whoever waits after a change is woken, also when the bell was rung before that,
// and many rings for which nobody was there wake once.
func TestSignal(t *testing.T) {
	b := NewSignal()
	select {
	case <-b:
		t.Fatal("it has rung by itself")
	default:
	}
	for range 1000 {
		b.Notify() // blocks for ever if it waits for somebody
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
