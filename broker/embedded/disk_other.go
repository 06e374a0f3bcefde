//go:build !linux && !darwin && !freebsd && !windows

package embedded

import (
	"errors"
	"syscall"
)

// noRoomErrors are the errors for a full disk or quota.
var noRoomErrors = []error{syscall.ENOSPC, syscall.EDQUOT}

// freeBytes is not implemented for this system.
func freeBytes(string) (int64, error) { return 0, errors.ErrUnsupported }

// checkAccess is not implemented for this system.
func checkAccess(string) error { return nil }
