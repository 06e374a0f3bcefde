package local

import (
	"math"
	"testing"
)

// Connections that have not sent the passcode leave open files for others, whatever the
// limit of open files is; with the usual limit of services there may be 512 for each of the
// two listeners.
func TestOpeningLeavesOpenFiles(t *testing.T) {
	for _, limit := range []int{256, 1024, 4096, 16 << 10, 1 << 16, math.MaxInt} {
		if n := openingLimit(limit); 2*n > limit/16 || n < min(limit/64, 512) {
			t.Errorf("with %d open files, %d connections may wait for each listener", limit, n)
		}
	}
	if n := openingLimit(16 << 10); n != 512 {
		t.Errorf("with the usual limit, %d connections may wait", n)
	}
	if n := defaultBounds().opening; n > 512 || n < 4 {
		t.Errorf("%d connections may wait", n)
	}
}
