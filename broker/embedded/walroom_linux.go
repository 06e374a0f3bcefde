package embedded

import (
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"peerlink/internal/durable"
)

const (
	// shmLockAt is the offset of the byte of "-shm" that every connection has locked (UNIX_SHM_DMS
	// in SQLite's os_unix.c).
	shmLockAt = 128
	// shmSize is the size in bytes in which SQLite allocates "-shm".
	shmSize = 32 << 10
)

// heldShm are the files for which keepSharedMemory was called. They stay open until the process
// ends, because closing one would release the locks of SQLite in this process.
var heldShm struct {
	sync.Mutex
	files []*os.File
}

// keepSharedMemory prevents SQLite from truncating an existing file with shared memory when it opens a
// store: another program could use up the space before SQLite has extended the file again. SQLite
// truncates it, so that nothing from before a crash is used, if no connection has locked it. So
// keepSharedMemory clears the file in place, and locks it as a connection does, until release is called.
// It does nothing if a connection has locked it, or after an error.
func keepSharedMemory(path string) (release func()) {
	heldShm.Lock()
	defer heldShm.Unlock()
	f := openShm(path)
	// Unlike other locks, those of open files exclude those of the same process.
	if f == nil || lockShm(f, unix.F_WRLCK) != nil {
		return func() {}
	}
	release = func() { _ = lockShm(f, unix.F_UNLCK) }
	if _, err := f.WriteAt(make([]byte, shmSize), 0); err != nil || lockShm(f, unix.F_RDLCK) != nil {
		release()
	}
	return release
}

// lockShm sets the type of the lock that an open file has.
func lockShm(f *os.File, lockType int16) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: lockType, Start: shmLockAt, Len: 1})
}

// openShm returns an open file from heldShm, or opens the file and adds it. It returns nil if the file
// does not exist or can not be opened. The caller holds the lock of heldShm.
func openShm(path string) *os.File {
	info, err := os.Lstat(path)
	if err != nil || !info.Mode().IsRegular() {
		return nil
	}
	for _, f := range heldShm.files {
		if held, err := f.Stat(); err == nil && os.SameFile(held, info) {
			return f
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR|durable.NoFollow, 0)
	if err != nil {
		return nil
	}
	heldShm.files = append(heldShm.files, f)
	return f
}
