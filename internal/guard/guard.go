// Package guard keeps an opened root key out of places where it could be found
// later: core dumps, swap, and other processes' debuggers, as far as the
// operating system allows it; and it refuses key files that others can read.
package guard

import (
	"fmt"
	"io/fs"
	"os"
	"runtime"
)

// Process protects the memory of this process from now on. What the system
// does not allow is left: the key is no worse off than without.
func Process() { protect() }

// Service takes from this process what a service never needs: being dumped or
// traced, which would show its server key, and getting more privileges than it
// has. What the system does not allow is left.
func Service() { confine() }

// CheckFile fails if the key file can be read or written by others than its
// owner. On a file system that knows no modes, such as FAT on a USB stick,
// there is nothing to check.
func CheckFile(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if mode := fi.Mode().Perm(); mode&0o077 != 0 && !modeless(path) {
		return fmt.Errorf("%s can be read or changed by other users (mode %v): nobody but you may; first \"chmod 600 %s\", and ask yourself who may have read it already", path, fs.FileMode(mode), path)
	}
	return nil
}
