//go:build unix && !linux

package guard

import "golang.org/x/sys/unix"

func noCoreDumps() { unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}) }
