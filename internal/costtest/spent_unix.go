//go:build unix

package costtest

import (
	"syscall"
	"time"
)

// Spent returns the processor time used by the process. On a busy machine, elapsed time
// would measure the load of the machine.
func Spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
