//go:build linux || darwin || freebsd

package embedded

import "golang.org/x/sys/unix"

// noRoomErrors are the errors for a full disk or quota.
var noRoomErrors = []error{unix.ENOSPC, unix.EDQUOT}

// freeBytes returns how many bytes users other than root can store in the file system of dir,
// regardless of their quotas.
func freeBytes(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * int64(fs.Bsize), nil
}

// checkAccess returns why this user can not read and write an existing file, or nil. It does
// not open the file: closing it would release the locks of SQLite in this process.
func checkAccess(path string) error {
	return unix.Faccessat(unix.AT_FDCWD, path, unix.R_OK|unix.W_OK, unix.AT_EACCESS)
}
