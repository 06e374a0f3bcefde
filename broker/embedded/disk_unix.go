//go:build linux || darwin || freebsd

package embedded

import "golang.org/x/sys/unix"

// noRoomErrors mean that a disk, or a quota, is full.
var noRoomErrors = []error{unix.ENOSPC, unix.EDQUOT}

// freeBytes returns how much more this user can store in a directory.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil
}
