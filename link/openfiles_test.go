package link

import (
	"math"
	"testing"

	"peerlink/internal/pendingconns"
)

// For any limit of open files, unauthenticated clients may use a large part of it, so that
// a few of them cannot exclude the others, and a third of it remains for the peers. With
// the usual limit of services, the defaults are those in the documentation.
func TestStrangersLeaveOpenFiles(t *testing.T) {
	for limit := 64; limit < 1<<21; limit += limit/7 + 1 {
		pending, handshakes, waiting := connLimits(limit)
		few := pending < min(limit/5, 4096) || handshakes < min(limit/8, 256) || waiting < min(limit/5, 1024)
		if pending+handshakes+waiting > limit*2/3+1 || few {
			t.Errorf("with %d open files, %d connections may be pending, %d handshakes run and %d wait", limit, pending, handshakes, waiting)
		}
	}
	for _, limit := range []int{16 << 10, 1 << 16, math.MaxInt} {
		if pending, handshakes, waiting := connLimits(limit); pending != 4096 || handshakes != 256 || waiting != 1024 {
			t.Errorf("with %d open files, %d connections may be pending, %d handshakes run and %d wait", limit, pending, handshakes, waiting)
		}
	}
	if pendingconns.OpenFiles() < 1 {
		t.Errorf("the limit of open files is %d", pendingconns.OpenFiles())
	}
}
