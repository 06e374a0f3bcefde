//go:build unix

package guard

import (
	"io/fs"
	"os"
	"syscall"
)

// mayChangeMode reports whether, as far as the owner is concerned, this process may change the
// file's mode.
func mayChangeMode(fi fs.FileInfo) bool {
	st, ok := fi.Sys().(*syscall.Stat_t)
	return !ok || os.Geteuid() == 0 || int(st.Uid) == os.Geteuid()
}
