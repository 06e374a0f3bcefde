package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// forget removes a synced file from the page cache, so that it is read back from the
// medium: a defective USB stick may not have stored it.
func forget(f *os.File) { unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
