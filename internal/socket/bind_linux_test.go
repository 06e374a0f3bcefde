package socket

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// At no time can other users connect, for any umask: the socket file is created with its
// mode, which is never changed.
func TestModeFromTheBeginning(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(folder(t), "s")
	watch, err := unix.InotifyInit1(unix.IN_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(watch)
	if _, err := unix.InotifyAddWatch(watch, filepath.Dir(path), unix.IN_ATTRIB); err != nil {
		t.Fatal(err)
	}
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if fi, err := os.Lstat(path); err != nil || fi.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", fi.Mode(), err)
	}
	events := make([]byte, 4096)
	if n, err := unix.Read(watch, events); err == nil && bytes.Contains(events[:n], []byte("s\x00")) {
		t.Error("the mode of the socket file was changed after its creation")
	}
}
