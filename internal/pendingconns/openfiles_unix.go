//go:build unix

package pendingconns

import (
	"math"

	"golang.org/x/sys/unix"
)

// OpenFiles returns the limit of open files of the process, connections included. The
// Go runtime has raised it at the start to the maximum that the system allows. If there is
// no limit, or it is not known, the result is [math.MaxInt].
func OpenFiles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return math.MaxInt
	}
	return int(limit.Cur)
}
