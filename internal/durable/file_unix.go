//go:build unix

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// Links returns how many names (hard links) the file has, or 1 where that can not
// be known.
func Links(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink)
	}
	return 1
}

// keepOwner gives a file to the owner of what is at path, the file that it replaces
// or its folder:
// what root writes for a user, by sudo, must not become unreadable to him.
func keepOwner(f *os.File, path string) {
	if os.Geteuid() != 0 {
		return
	}
	fi, err := os.Lstat(path)
	if err != nil {
		return
	}
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		f.Chown(int(st.Uid), int(st.Gid))
	}
}
