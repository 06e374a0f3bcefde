//go:build unix

package costtest

import (
	"syscall"
	"time"
)

// Spent is the processor time that the process has used. On a busy machine it says what
// a parser needs, where the time that passes says how busy the machine is.
func Spent() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		panic(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
