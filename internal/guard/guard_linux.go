package guard

import (
	"syscall"

	"golang.org/x/sys/unix"
)

func protect() {
	noDumps()
	// With a limit on locked memory the program would fail once it reaches it.
	// Nobody can lock single values: Go moves and copies them at will.
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil && limit.Cur == unix.RLIM_INFINITY || unix.Geteuid() == 0 {
		const onFault = 4 // MCL_ONFAULT: what is never touched needs no memory
		unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | onFault)
	}
}

func noDumps() {
	unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0)
	unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{})
}

func confine() {
	noDumps()
	// This holds for a single thread, and those it starts. Where C code has
	// started others (not in the released binary) it is not possible.
	syscall.AllThreadsSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0)
}
