package durable

import (
	"errors"
	"fmt"
	"syscall"
)

// ErrNoInodes is wrapped by errors of a disk that can hold no more files, although it may have free space.
var ErrNoInodes = errors.New("no free inodes")

// ExplainFull returns err, of making a file in a folder, with the reason if the disk is reported to be full because
// it has no free inodes, and err otherwise.
func ExplainFull(folder string, err error) error {
	if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, ErrNoInodes) {
		return err
	}
	if free, known := FreeInodes(folder); !known || free > 0 {
		return err
	}
	return fmt.Errorf("%w on the disk of %s, which can hold no more files: remove files there: %w", ErrNoInodes, folder, err)
}
