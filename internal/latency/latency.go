// Package latency counts how long something takes, for summaries and histograms.
package latency

import (
	"math/bits"
	"sync"
	"time"
)

// Timing summarizes how long something has taken in the last five minutes or so.
type Timing struct {
	Count uint64  `json:"count"`
	P50   float64 `json:"p50_seconds"` // the median; 0 if Count is 0
	P99   float64 `json:"p99_seconds"` // 99 of 100 were shorter
}

// Histogram counts durations since the service started, in the form that Prometheus expects.
type Histogram struct {
	Bounds     []float64 // upper bounds of the buckets in seconds, ascending, without +Inf
	Cumulative []uint64  // for each bound, the number of durations below it
	Count      uint64    // of all durations
	Sum        float64   // of all durations, in seconds
}

// Durations are counted in four buckets for each power of two of a unit. The unit is 1/1024 ms,
// so that the bounds of the histogram are 1 ms, 2 ms, 4 ms and so on. A percentile differs from
// the true one by a fifth at most.
const (
	unitsPerMs    = 1024
	subBucketBits = 2
	octaveCount   = 27 // the last one ends at 2^17 ms, about two minutes, and counts what is longer, too
	firstBound    = 10 // power of two: 1 ms
	lastBound     = 26 // power of two: 65.536 s

	slotCount = 5 // of slotTime each: the period of a Timing
	slotTime  = time.Minute
)

// Durations counts how long something takes. It takes about 3 KiB of memory from the first duration on. The
// methods are safe for concurrent use. The zero value is empty.
type Durations struct {
	mu   sync.Mutex
	data *data // nil until there is a duration
}

type data struct {
	octaves [octaveCount]uint64 // since the start, by power of two
	count   uint64
	sum     time.Duration
	slots   [slotCount]slot
}

// slot counts the durations that ended within one slotTime.
type slot struct {
	number  int64 // of slotTimes since 1970
	buckets [octaveCount << subBucketBits]uint32
}

// bucketOf returns the bucket of a duration.
func bucketOf(d time.Duration) int {
	units := uint64(min(max(d, 0), time.Hour)) * unitsPerMs / uint64(time.Millisecond)
	units = min(max(units, 1<<subBucketBits), 1<<octaveCount-1)
	octave := bits.Len64(units) - 1
	return octave<<subBucketBits | int(units>>(octave-subBucketBits))&(1<<subBucketBits-1)
}

// bucketStart returns the shortest duration in a bucket, in seconds.
func bucketStart(bucket int) float64 {
	octave, sub := bucket>>subBucketBits, bucket&(1<<subBucketBits-1)
	units := float64(uint64(1)<<octave) * (1 + float64(sub)/(1<<subBucketBits))
	return units / unitsPerMs / 1000
}

// Recorder records durations that have ended at the same time.
type Recorder struct {
	data *data
	slot *slot
}

// Record calls f with a Recorder of durations that end at the time now. f must be quick.
func (d *Durations) Record(now time.Time, f func(Recorder)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.data == nil {
		d.data = new(data)
	}
	number := slotNumber(now)
	current := &d.data.slots[number%slotCount]
	if current.number != number {
		*current = slot{number: number}
	}
	f(Recorder{d.data, current})
}

func slotNumber(now time.Time) int64 { return max(now.Unix(), 0) / int64(slotTime/time.Second) }

// Add counts one duration.
func (r Recorder) Add(d time.Duration) {
	bucket := bucketOf(d)
	r.slot.buckets[bucket]++
	r.data.octaves[bucket>>subBucketBits]++
	r.data.count++
	r.data.sum += max(d, 0)
}

// Add counts one duration that ends at the time now.
func (d *Durations) Add(duration time.Duration, now time.Time) {
	d.Record(now, func(r Recorder) { r.Add(duration) })
}

// Timing returns the summary of the last slotCount of slotTime.
func (d *Durations) Timing(now time.Time) Timing {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.data == nil {
		return Timing{}
	}
	var sum [octaveCount << subBucketBits]uint64
	var t Timing
	for i := range d.data.slots {
		s := &d.data.slots[i]
		if age := slotNumber(now) - s.number; age < 0 || age >= slotCount {
			continue
		}
		for bucket, n := range s.buckets {
			sum[bucket] += uint64(n)
			t.Count += uint64(n)
		}
	}
	t.P50, t.P99 = percentile(sum[:], t.Count, 0.50), percentile(sum[:], t.Count, 0.99)
	return t
}

// percentile returns the duration, in seconds, that the fraction p of count durations do not
// exceed, interpolated within its bucket.
func percentile(buckets []uint64, count uint64, p float64) float64 {
	rank, below := p*float64(count), 0.0
	for bucket, n := range buckets {
		if n > 0 && below+float64(n) >= rank {
			start := bucketStart(bucket)
			return start + (bucketStart(bucket+1)-start)*(rank-below)/float64(n)
		}
		below += float64(n)
	}
	return 0
}

// Histogram returns the counts since the start.
func (d *Durations) Histogram() Histogram {
	d.mu.Lock()
	defer d.mu.Unlock()
	var h Histogram
	below := uint64(0)
	for octave := range octaveCount {
		if octave >= firstBound && octave <= lastBound {
			h.Bounds = append(h.Bounds, bucketStart(octave<<subBucketBits))
			h.Cumulative = append(h.Cumulative, below)
		}
		if d.data != nil {
			below += d.data.octaves[octave]
		}
	}
	if d.data != nil {
		h.Count, h.Sum = d.data.count, d.data.sum.Seconds()
	}
	return h
}
