//go:build linux

package faulttest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"
)

// report is the result of a run.
type report struct {
	mu sync.Mutex

	Seed          uint64                   `json:"seed"`
	Duration      string                   `json:"duration"`
	Rate          int                      `json:"rate"`     // messages per second, in each direction
	Messages      map[string]figures       `json:"messages"` // by direction
	Rounds        int                      `json:"rounds"`
	QuietRounds   int                      `json:"quiet_rounds"`               // rounds in which the applications stopped sending
	Faults        map[string]*faultFigures `json:"faults"`                     // by kind
	SetAside      int                      `json:"set_aside"`                  // dead letters; all of them poison
	Starts        int                      `json:"starts"`                     // of processes
	FailedStarts  int                      `json:"failed_starts"`              // starts that failed, for example because of a full disk
	PeakMemoryMiB int64                    `json:"peak_memory_mib"`            // of the largest process
	Longest       float64                  `json:"longest_standstill_seconds"` // the longest standstill
	LongestAfter  string                   `json:"longest_standstill_after"`   // its direction, and the faults of that round
	Unaffected    float64                  `json:"longest_elsewhere_seconds"`  // longest wait for messages between nodes that no fault affected

	began time.Time
}

// faultFigures are the results of one kind of fault.
type faultFigures struct {
	Count   int     `json:"count"`
	Longest float64 `json:"longest_standstill_seconds"` // the longest after a round with such a fault
	total   float64
}

func newReport() *report {
	return &report{Messages: make(map[string]figures), Faults: make(map[string]*faultFigures), began: time.Now()}
}

// round records a round of faults, how long it took until messages were delivered in
// all directions again, and which direction was the last.
func (r *report) round(of round, last string, standstill time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Rounds++
	if of.quiet > 0 {
		r.QuietRounds++
	}
	seconds := standstill.Seconds()
	if seconds > r.Longest {
		r.Longest, r.LongestAfter = seconds, fmt.Sprintf("%s, after %v", last, of.faults)
	}
	for _, f := range of.faults {
		k := r.Faults[f.name]
		if k == nil {
			k = new(faultFigures)
			r.Faults[f.name] = k
		}
		k.Count++
		k.total += seconds
		k.Longest = max(k.Longest, seconds)
	}
}

// recordUnaffected records the longest wait for messages between nodes that no fault affected.
func (r *report) recordUnaffected(longest time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.Unaffected = max(r.Unaffected, longest.Seconds())
}

// faults returns the number of all faults.
func (r *report) faults() int {
	n := 0
	for _, k := range r.Faults {
		n += k.Count
	}
	return n
}

// progress returns a line about the progress of the run.
func (r *report) progress(now figures) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return fmt.Sprintf("%v: %d messages accepted, %d delivered, %d repeated, %d on the way; %d faults in %d rounds, longest standstill %.2f s",
		time.Since(r.began).Round(time.Second), now.Accepted, now.Delivered, now.Repeated, now.Lost, r.faults(), r.Rounds, r.Longest)
}

// JSON returns the report as JSON.
func (r *report) JSON() []byte {
	text, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		panic(err)
	}
	return text
}

// String returns the report as text.
func (r *report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %s, %d messages a second in each direction\n", r.Seed, r.Duration, r.Rate)
	for _, name := range slices.Sorted(maps.Keys(r.Messages)) {
		f := r.Messages[name]
		fmt.Fprintf(&b, "%s: %d messages accepted, %d lost, %d damaged, %d repeated\n", name, f.Accepted, f.Lost, f.Damaged, f.Repeated)
	}
	fmt.Fprintf(&b, "%d faults in %d rounds, %d of them quiet; longest standstill %.2f s, %s\n", r.faults(), r.Rounds, r.QuietRounds, r.Longest, r.LongestAfter)
	fmt.Fprintf(&b, "between nodes that no fault affected, messages took %.2f s at most\n", r.Unaffected)
	for _, name := range slices.Sorted(maps.Keys(r.Faults)) {
		k := r.Faults[name]
		fmt.Fprintf(&b, "  %-24s %5d, then a standstill of %.2f s at most, %.2f s on average\n", name, k.Count, k.Longest, k.total/float64(k.Count))
	}
	fmt.Fprintf(&b, "%d poisonous messages set aside; %d starts of processes, %d failed; at most %d MiB of memory each\n",
		r.SetAside, r.Starts, r.FailedStarts, r.PeakMemoryMiB)
	return b.String()
}
