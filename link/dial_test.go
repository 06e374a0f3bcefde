package link

import (
	"testing"
	"time"
)

// A thousand senders that have lost their peer at the same moment do not reconnect at
// the same moment, neither at the first attempt nor later. The pauses grow to a minute
// and not beyond, so that a peer that has recovered is connected by then.
func TestAttemptsAreSpread(t *testing.T) {
	cfg := Config{}
	cfg.setDefaults()
	if cfg.RetryMax > 30*time.Second {
		t.Errorf("pauses grow to twice %v", cfg.RetryMax)
	}
	const senders = 1000
	pauses := make([]func() time.Duration, senders)
	for i := range pauses {
		pauses[i] = newRetries(cfg.RetryMin, cfg.RetryMax).pause
	}
	for attempt := range 20 {
		var buckets [10]int
		longest := min(time.Duration(float64(cfg.RetryMin)*pow(1.5, attempt)), cfg.RetryMax) * 2
		for _, next := range pauses {
			pause := next()
			if pause < 0 || pause > longest+time.Millisecond {
				t.Fatalf("pause %d is %v, want at most %v", attempt, pause, longest)
			}
			buckets[min(int(10*pause/longest), 9)]++
		}
		for i, n := range buckets {
			if n < senders/20 || n > senders/5 {
				t.Errorf("%d of %d senders come back in part %d of 10 of %v", n, senders, i, longest)
			}
		}
	}
}

func pow(x float64, n int) float64 {
	p := 1.0
	for range n {
		p *= x
	}
	return p
}
