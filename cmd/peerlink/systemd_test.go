//go:build linux

package main

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// The service notifies systemd when it is ready, regularly while it is alive, and when it
// begins to stop.
func TestNotifyServiceManager(t *testing.T) {
	dir, err := os.MkdirTemp("", "notify") // paths of Unix sockets must be short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	l, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "300000")
	s := newServer(t, nodetype.AccountingAuthority)
	s.start()
	t.Cleanup(func() { s.process.Process.Kill() })
	next := func() string {
		t.Helper()
		buf := make([]byte, 1000)
		if err := l.SetReadDeadline(time.Now().Add(30 * time.Second)); err != nil {
			t.Fatal(err)
		}
		n, err := l.Read(buf)
		if err != nil {
			t.Fatalf("%v\n%s", err, s.log())
		}
		return string(buf[:n])
	}
	for _, want := range []string{"READY=1", "WATCHDOG=1", "WATCHDOG=1"} {
		if got := next(); got != want {
			t.Fatalf("the notification is %q, want %q", got, want)
		}
	}
	if err := s.process.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	for got := next(); got != "STOPPING=1"; got = next() {
		if got != "WATCHDOG=1" {
			t.Fatalf("the notification is %q, want WATCHDOG=1 or STOPPING=1", got)
		}
	}
	if err := <-s.exited; err != nil {
		t.Errorf("the service ended with %v", err)
	}
}

// The unit files are valid, the service's memory is limited, and systemd rates its exposure as low, so that an
// intruder could do little.
func TestUnit(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"peerlink.service", "peerlink.socket"} {
		text, err := os.ReadFile("../../deploy/systemd/" + name)
		if err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, ".service") && !regexp.MustCompile(`(?m)^MemoryMax=[1-9][0-9]*[MG]$`).Match(text) {
			t.Error("the unit has no MemoryMax")
		}
		// The program of the unit is not installed on this machine.
		text = []byte(strings.Replace(string(text), "/usr/local/bin/peerlink", "/bin/true", 1))
		if err := os.WriteFile(filepath.Join(dir, name), text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("systemd-analyze is not installed: the unit is not checked")
	}
	unit := filepath.Join(dir, "peerlink.service")
	if out, err := exec.Command(analyze, "verify", "--man=no", unit, filepath.Join(dir, "peerlink.socket")).CombinedOutput(); err != nil || strings.Contains(string(out), "peerlink.s") {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
	// The threshold is ten times the exposure level.
	if out, err := exec.Command(analyze, "security", "--offline=true", "--threshold=15", unit).CombinedOutput(); err != nil {
		t.Errorf("systemd-analyze security: %v\n%s", err, out)
	}
}
