package socket

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// folder returns a temporary folder whose path is short enough for Unix sockets on
// every machine.
func folder(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "socket")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// Only the owner can connect; a second listener gets an error; a socket of a crashed
// process is replaced, and no other file is.
func TestListen(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	if fi, err := os.Stat(path); err != nil || runtime.GOOS != "windows" && fi.Mode().Perm() != 0o600 {
		t.Errorf("the socket is %v (%v)", fi.Mode(), err)
	}
	if _, err := Listen(path); !errors.Is(err, ErrInUse) {
		t.Errorf("second listener: got %v, want ErrInUse", err)
	}
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as after a crash
	l.Close()
	if l, err = Listen(path); err != nil {
		t.Fatalf("after a crash: %v", err)
	}
	l.Close()
	if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("at the path of another file: %v", err)
	}
	if _, err := Listen(filepath.Join(path, strings.Repeat("d", MaxPath))); !errors.Is(err, ErrPathTooLong) {
		t.Errorf("long path: %v", err)
	}
}

// A socket whose service does not accept connections fast enough, so that its backlog is full, is
// in use, and stays.
func TestFullBacklogIsInUse(t *testing.T) {
	path := filepath.Join(folder(t), "s")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for n := 0; ; n++ {
		nc, err := net.DialTimeout("unix", path, 100*time.Millisecond)
		if err != nil {
			break
		}
		defer nc.Close()
		if n > 10_000 {
			t.Skip("the backlog has no limit here")
		}
	}
	if other, err := Listen(path); !errors.Is(err, ErrInUse) {
		if err == nil {
			other.Close()
		}
		t.Errorf("got %v, want ErrInUse", err)
	}
	if _, err := os.Lstat(path); err != nil {
		t.Error(err)
	}
}
