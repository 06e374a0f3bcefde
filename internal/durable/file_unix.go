//go:build unix

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// NoFollow is a flag for [os.OpenFile] that makes opening a symbolic link fail, on systems
// that have one.
const NoFollow = syscall.O_NOFOLLOW

// Links returns the number of names (hard links) of the file, or 1 if it is unknown.
func Links(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink)
	}
	return 1
}

// keepOwner sets the owner of a file to that of old, the file that it will replace: a file that
// the superuser writes for a user, by sudo, must be readable for that user.
func keepOwner(f *os.File, old fs.FileInfo) {
	if os.Geteuid() != 0 {
		return
	}
	if st, ok := old.Sys().(*syscall.Stat_t); ok {
		f.Chown(int(st.Uid), int(st.Gid))
	}
}

// ownedByOther reports whether a file may have been made by somebody else than the owner of
// its folder: in a folder like /tmp, other users can make files with any name.
func ownedByOther(file, folder fs.FileInfo) bool {
	f, ok1 := file.Sys().(*syscall.Stat_t)
	d, ok2 := folder.Sys().(*syscall.Stat_t)
	return !ok1 || !ok2 || f.Uid != d.Uid && folder.Mode().Perm()&0o022 != 0
}
