package linktest

import (
	"os"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// StallPolls prepares the service of n, which must not have been started, to be stopped in the middle of a poll of
// its files, as a file system does that does not respond. The service polls no more from stall on until resume is
// called.
func (n *Node) StallPolls(t testing.TB) (stall, resume func()) {
	var stuck atomic.Bool
	release := make(chan struct{})
	// The clock is the only function here that reading a certificate can be blocked by.
	n.Config.Now = func() time.Time {
		if stuck.Load() && readsCertificate() {
			<-release
		}
		return time.Now()
	}
	stall = func() {
		t.Helper()
		cert, err := os.ReadFile(n.CertFile)
		if err != nil {
			t.Fatal(err)
		}
		stuck.Store(true)
		if err := os.WriteFile(n.CertFile, append(cert, '\n'), 0o644); err != nil { // it has to be read again
			t.Fatal(err)
		}
	}
	resume = func() {
		stuck.Store(false)
		close(release)
	}
	return stall, resume
}

// readsCertificate reports whether it was called, directly or indirectly, by (*link.Certificate).reload.
func readsCertificate() bool {
	pcs := make([]uintptr, 20)
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs)])
	for {
		f, more := frames.Next()
		if strings.HasSuffix(f.Function, "(*Certificate).reload") {
			return true
		}
		if !more {
			return false
		}
	}
}
