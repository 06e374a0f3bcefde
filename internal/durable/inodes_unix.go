//go:build linux || darwin || freebsd

package durable

import "golang.org/x/sys/unix"

// FreeInodes returns how many more files the file system of a folder can hold. known is false if that is unknown, or if
// the file system has no fixed number of inodes.
func FreeInodes(folder string) (free uint64, known bool) {
	var fs unix.Statfs_t
	if err := unix.Statfs(folder, &fs); err != nil || fs.Files == 0 {
		return 0, false
	}
	return uint64(max(fs.Ffree, 0)), true
}
