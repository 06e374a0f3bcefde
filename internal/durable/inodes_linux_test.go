package durable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// A disk that is full because it has no free inodes is not taken for one without free space, nor the other way round.
func TestNoFreeInodes(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,nr_inodes=8,mode=0700"); err != nil {
		t.Skipf("skipped: disk without inodes (mounting a small tmpfs: %v)", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte("x"), 256<<10), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Replace(path, []byte("new"), 0o600); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrNoInodes) {
		t.Errorf("no space: %v", err)
	}
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	for i := 0; err == nil; i++ {
		err = Create(filepath.Join(dir, fmt.Sprint(i)), []byte("x"), 0o600)
	}
	if !errors.Is(err, syscall.ENOSPC) || !errors.Is(err, ErrNoInodes) || !strings.Contains(err.Error(), "no free inodes on the disk of "+dir) {
		t.Errorf("no inodes: %v", err)
	}
}
