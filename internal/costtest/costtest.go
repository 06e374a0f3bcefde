// Package costtest checks, in tests, the costs of parsers of untrusted input.
package costtest

import (
	"runtime/metrics"
	"testing"
	"time"
)

// Upper limits for any parser of untrusted input, for any input of permitted size.
const (
	maxBytes = 32 << 20
	maxTime  = 500 * time.Millisecond
)

// NeedsExactFigures skips a test that only measures costs if the race detector is on,
// which multiplies them. "make test" runs these tests without it.
func NeedsExactFigures(t testing.TB) {
	t.Helper()
	if withRaceDetector {
		t.Skip("skipped with the race detector: memory and time of a parser (\"make cost\" runs this without it)")
	}
}

// Check calls parse and fails the test if it allocates more than [maxBytes] in total, or
// takes more than [maxTime] of processor time three times in a row: on a busy machine a
// single measurement is unreliable. No other goroutine may allocate or compute much
// meanwhile. With the race detector it only calls parse.
func Check(t testing.TB, input string, parse func()) {
	t.Helper()
	if withRaceDetector {
		parse()
		return
	}
	check(t, input, parse)
}

// CheckMemory calls parse and fails the test if it allocates more than max bytes in total, three times in a row:
// the runtime counts a part of the memory for small objects later. Other goroutines, and the race detector, are
// treated as by [Check].
func CheckMemory(t testing.TB, input string, max uint64, parse func()) {
	t.Helper()
	var n uint64
	for range 3 {
		before := allocated()
		parse()
		if n = allocated() - before; n <= max || withRaceDetector {
			return
		}
	}
	t.Errorf("%s: %d bytes were allocated, more than %d", input, n, max)
}

func check(t testing.TB, input string, parse func()) {
	t.Helper()
	var took time.Duration
	for range 3 {
		before, start := allocated(), Spent()
		parse()
		took = Spent() - start
		if n := allocated() - before; n > maxBytes {
			t.Errorf("%s: %d bytes were allocated, more than %d", input, n, maxBytes)
			return
		}
		if took <= maxTime {
			return
		}
	}
	t.Errorf("%s: took %v, more than %v", input, took, maxTime)
}

// allocated returns how many bytes the process has allocated since its start, to within a
// few KiB. Unlike [runtime.ReadMemStats] it does not stop the process, which would take
// most of the time of a fuzz target.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
