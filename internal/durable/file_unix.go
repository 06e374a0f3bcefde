//go:build unix

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// Links returns the number of names (hard links) of the file, or 1 if it is unknown.
func Links(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink)
	}
	return 1
}

// keepOwner sets the owner of a file to the owner of the file or folder at path: a file
// that root writes for a user, by sudo, must be readable for that user.
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
