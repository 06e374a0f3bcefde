package main

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"peerlink/broker/embedded"
)

// hangSyncs makes every fsync of a process hang, as a disk does that does not respond, until resume is called.
// As with such a disk, a process that is killed or exits ends only when the calls return.
func hangSyncs(t *testing.T, pid int) (resume func()) {
	t.Helper()
	strace := exec.Command("strace", "-f", "-o", os.DevNull, "-p", strconv.Itoa(pid),
		"-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:delay_enter=100000000")
	stderr, err := strace.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := strace.Start(); err != nil {
		t.Skipf("skipped: a disk that hangs: %v", err)
	}
	resume = sync.OnceFunc(func() {
		strace.Process.Kill()
		strace.Wait()
	})
	t.Cleanup(resume)
	line, _ := bufio.NewReader(stderr).ReadString('\n')
	if !strings.Contains(line, " attached") {
		t.Skipf("skipped: a disk that hangs: %s", line)
	}
	return resume
}

// A service whose disk hangs exits nevertheless, within the drain timeout plus 5 s of SIGTERM: with exit code 1, and the
// reason in its log. What it has confirmed is there at the next start.
func TestStopOnHangingDisk(t *testing.T) {
	t.Parallel()
	s, key := served(t, nil)
	s.works(key)
	resume := hangSyncs(t, s.process.Process.Pid)
	began := time.Now()
	if err := s.process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	for !strings.Contains(s.log(), "the message store could not be closed within") {
		if time.Since(began) > 11*time.Second { // 1 s for a busy machine
			t.Fatalf("the service does not exit within 10 s: %s", s.log())
		}
		time.Sleep(10 * time.Millisecond)
	}
	resume()
	<-s.exited
	if code := s.process.ProcessState.ExitCode(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	s.start()
	s.works(key)
	s.terminate()
	w, err := embedded.ReadWaiting(filepath.Join(s.state, "messages.db"))
	if err != nil || w.Messages != 2 {
		t.Errorf("%d messages wait (%v), want 2", w.Messages, err)
	}
}
