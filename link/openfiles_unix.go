//go:build unix

package link

import (
	"math"

	"golang.org/x/sys/unix"
)

// openFiles returns how many files the process may have open, connections
// included. At its start Go has made that as many as the system allows.
func openFiles() int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || uint64(limit.Cur) > math.MaxInt32 {
		return unlimited
	}
	return int(limit.Cur)
}
