//go:build unix

package node_test

import "syscall"

const umasks = true

func umask(mask int) (restore func()) {
	old := syscall.Umask(mask)
	return func() { syscall.Umask(old) }
}
