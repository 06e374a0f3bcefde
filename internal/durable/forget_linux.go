package durable

import (
	"os"

	"golang.org/x/sys/unix"
)

// forget takes a file that was synced out of the memory of the system, so that
// reading it back asks the medium: a stick can lie.
func forget(f *os.File) { unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED) }
