//go:build linux || darwin || freebsd

package embedded

import "golang.org/x/sys/unix"

// noRoomErrors are the errors for a full disk or quota.
var noRoomErrors = []error{unix.ENOSPC, unix.EDQUOT}

// freeBytes returns how many bytes this user can store in the file system of dir.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil
}
