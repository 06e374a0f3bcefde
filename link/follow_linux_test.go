package link_test

import (
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// mountReadOnly mounts a directory over itself, read-only, until writable is
// called.
func mountReadOnly(t *testing.T, dir string) (writable func()) {
	t.Helper()
	if err := unix.Mount(dir, dir, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("skipped, a read-only directory: root may not mount here: %v", err)
	}
	writable = sync.OnceFunc(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(writable)
	if err := unix.Mount("", dir, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Skipf("skipped, a read-only directory: root may not mount here: %v", err)
	}
	return writable
}
