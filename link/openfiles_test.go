package link

import (
	"math"
	"testing"
)

// Whatever the limit of open files is, unauthenticated clients can hold open at least
// some files, and leave a good part of the limit to the peers. With the usual limit of
// services, the defaults are those in the documents.
func TestStrangersLeaveOpenFiles(t *testing.T) {
	for limit := 64; limit < 1<<21; limit += limit/7 + 1 {
		pending, handshakes := connLimits(limit)
		if all := pending + 5*handshakes; all > limit*2/3 || pending < limit/4 && pending < 4096 || handshakes < 4 {
			t.Errorf("with %d open files, %d connections may be pending and %d handshakes go on", limit, pending, handshakes)
		}
	}
	for _, limit := range []int{16 << 10, 1 << 16, math.MaxInt} {
		if pending, handshakes := connLimits(limit); pending != 4096 || handshakes != 256 {
			t.Errorf("with %d open files, %d connections may be pending and %d handshakes go on", limit, pending, handshakes)
		}
	}
	if openFiles() < 1 {
		t.Errorf("the limit of open files is %d", openFiles())
	}
}
