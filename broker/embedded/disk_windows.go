package embedded

import (
	"os"

	"golang.org/x/sys/windows"
)

// noRoomErrors are the errors for a full disk or quota.
var noRoomErrors = []error{windows.ERROR_DISK_FULL, windows.ERROR_HANDLE_DISK_FULL, windows.ERROR_DISK_QUOTA_EXCEEDED}

// freeBytes returns how many bytes this user can store on the volume of dir. A quota of the user
// is taken into account.
func freeBytes(dir string) (int64, error) {
	path, err := windows.UTF16PtrFromString(dir)
	if err != nil {
		return 0, err
	}
	var free uint64
	if err := windows.GetDiskFreeSpaceEx(path, &free, nil, nil); err != nil {
		return 0, err
	}
	return int64(min(free, 1<<62)), nil
}

// checkAccess returns why this user can not read and write an existing file, or nil.
func checkAccess(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err == nil {
		err = f.Close()
	}
	return err
}
