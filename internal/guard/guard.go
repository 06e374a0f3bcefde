// Package guard keeps an opened root key out of places where it could be found
// later: core dumps, swap, and other processes' debuggers, as far as the
// operating system allows it; and it refuses key files that others can read.
package guard

import (
	"errors"
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
// owner, and chmod could prevent that. On media that keep no modes (FAT, NTFS,
// many network and FUSE file systems) or can not be written, there is nothing to
// ask of the owner.
func CheckFile(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	mode := fi.Mode().Perm()
	if mode&0o077 == 0 || !CanRestrict(path, 0o077) {
		return nil
	}
	if !ownedByUs(fi) {
		return fmt.Errorf("%s can be read or changed by other users (mode %v), and belongs to one: have it chmod-ed to 600 by its owner, or copy it to a folder of your own (\"install -m 600\") and name the copy", path, mode)
	}
	return fmt.Errorf("%s can be read or changed by other users (mode %v): nobody but you may; first \"chmod 600 %s\", and ask yourself who may have read it already", path, mode, path)
}

// CanRestrict reports whether the owner of a file or folder can take the given
// mode bits, one of which it has at least, away from it. No list of file systems
// knows that, so it is tried, and undone.
func CanRestrict(path string, bits fs.FileMode) bool {
	fi, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" {
		return false
	}
	before := fi.Mode()
	if err := os.Chmod(path, before&^bits); err != nil {
		// Its owner, who is somebody else, could.
		return errors.Is(err, fs.ErrPermission) && !ownedByUs(fi)
	}
	fi, err = os.Stat(path)
	if err == nil && fi.Mode() == before {
		return false
	}
	os.Chmod(path, before)
	return err == nil && fi.Mode()&bits == 0
}
