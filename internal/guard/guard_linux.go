package guard

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func protect() {
	noDumps()
	// With a limit on locked memory the program would fail when it reaches the limit.
	// Single values can not be locked: Go moves and copies them.
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur == unix.RLIM_INFINITY || unix.Geteuid() == 0 {
		const onFault = 4 // MCL_ONFAULT: memory that is never touched is not allocated
		unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | onFault)
	}
}

func noDumps() {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

func confine() {
	noDumps()
	// This affects a single thread, and those it starts, so it is set for all threads. It
	// fails if C code has started threads (not in the released binary).
	syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
}
