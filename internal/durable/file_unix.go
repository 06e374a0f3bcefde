//go:build unix

package durable

import (
	"io/fs"
	"os"
	"syscall"
)

// NoFollow is a flag for [os.OpenFile] with which opening a symbolic link fails. It is 0 on
// systems that have no such flag.
const NoFollow = syscall.O_NOFOLLOW

// HardLinks returns the number of hard links (names) of the file, or 1 if it is unknown.
func HardLinks(fi fs.FileInfo) int {
	if st, ok := fi.Sys().(*syscall.Stat_t); ok {
		return int(st.Nlink)
	}
	return 1
}

// copyOwner sets the owner of f to that of old, the file that f will replace, if this process is
// the superuser's: a file that a user replaces with sudo must remain readable by that user.
// Errors are ignored: some file systems have no owners.
func copyOwner(f *os.File, old fs.FileInfo) {
	if os.Geteuid() != 0 {
		return
	}
	if st, ok := old.Sys().(*syscall.Stat_t); ok {
		f.Chown(int(st.Uid), int(st.Gid))
	}
}

// isOwn reports whether a file belongs to this user.
func isOwn(file fs.FileInfo) bool {
	st, ok := file.Sys().(*syscall.Stat_t)
	return ok && int(st.Uid) == os.Geteuid()
}

// untrustedOwner reports whether the owner of a file must not be copied by copyOwner: the file
// and its folder have different owners, and others can create files in the folder, as in /tmp,
// or the owners are unknown.
func untrustedOwner(file, folder fs.FileInfo) bool {
	f, ok1 := file.Sys().(*syscall.Stat_t)
	d, ok2 := folder.Sys().(*syscall.Stat_t)
	return !ok1 || !ok2 || f.Uid != d.Uid && folder.Mode().Perm()&0o022 != 0
}
