//go:build unix

package guard

import (
	"io/fs"
	"syscall"
)

// ownerOf returns the ID of the user that owns a file.
func ownerOf(fi fs.FileInfo) (uid int, known bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Uid), true
}

// groupOf returns the ID of the group of a file.
func groupOf(fi fs.FileInfo) (gid int, known bool) {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(st.Gid), true
}
