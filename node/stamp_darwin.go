package node

import (
	"io/fs"
	"syscall"
	"time"
)

// changeTime returns the time of the last change of a file's content or attributes.
func changeTime(fi fs.FileInfo) time.Time {
	st, ok := fi.Sys().(*syscall.Stat_t)
	if !ok {
		return time.Time{}
	}
	return time.Unix(int64(st.Ctimespec.Sec), int64(st.Ctimespec.Nsec))
}
