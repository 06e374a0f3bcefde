package doctor

import "golang.org/x/sys/unix"

// clockSynchronized reports whether the kernel knows that its clock is synchronized, or can not say.
func clockSynchronized() bool {
	var t unix.Timex
	state, err := unix.Adjtimex(&t)
	return err != nil || state != unix.TIME_ERROR
}
