//go:build !linux && !darwin && !freebsd && !windows

package embedded

import (
	"errors"
	"syscall"
)

// noRoomErrors mean that a disk, or a quota, is full.
var noRoomErrors = []error{syscall.ENOSPC, syscall.EDQUOT}

// freeBytes is not known here.
func freeBytes(string) (int64, error) { return 0, errors.ErrUnsupported }
