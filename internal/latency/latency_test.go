package latency

import (
	"math"
	"testing"
	"time"
)

// The percentiles are close to the true ones, and forget what is older than their period; the
// histogram counts each duration below its bounds, and forgets nothing.
func TestDurations(t *testing.T) {
	var d Durations
	start := time.Unix(1_000_000_020, 0)
	for i := range 1000 {
		d.Add(time.Duration(i+1)*time.Millisecond, start)
	}
	got := d.Timing(start.Add(slotTime))
	if got.Count != 1000 || math.Abs(got.P50-0.5) > 0.1 || math.Abs(got.P99-0.99) > 0.2 {
		t.Errorf("got %+v, expected 1000 durations, p50 near 0.5 s, p99 near 0.99 s", got)
	}
	h := d.Histogram()
	if h.Count != 1000 || math.Abs(h.Sum-500.5) > 0.001 {
		t.Errorf("histogram has %d durations with the sum %v", h.Count, h.Sum)
	}
	for i, bound := range h.Bounds {
		// The duration that is equal to a bound is in the next bucket.
		if want := min(1000, math.Round(bound*1000)-1); float64(h.Cumulative[i]) != want {
			t.Errorf("%d durations below %v s, expected %v", h.Cumulative[i], bound, want)
		}
	}
	if old := d.Timing(start.Add((slotCount + 1) * slotTime)); old != (Timing{}) {
		t.Errorf("after the period: %+v", old)
	}
}

// No duration, however hostile the clock, is outside of the buckets.
func TestBucket(t *testing.T) {
	last := 0
	for _, d := range []time.Duration{math.MinInt64, -1, 0, 1, time.Microsecond, time.Millisecond, time.Second, time.Hour, math.MaxInt64} {
		bucket := bucketOf(d)
		if bucket < last || bucket >= octaveCount<<subBucketBits {
			t.Errorf("%v is in bucket %d", d, bucket)
		}
		last = bucket
	}
}
