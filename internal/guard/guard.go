// Package guard keeps an opened root key out of places where it could be found later: core
// dumps, swap, and other processes' debuggers, as far as the operating system supports
// that. It also refuses key files that other users can read.
package guard

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"

	"peerlink/internal/shell"
)

// ProtectProcess protects the memory of this process from now on. Errors are ignored: the key is
// then no less safe than without the call.
func ProtectProcess() { protect() }

// ConfineService restricts this process, which is a service: it can not be dumped or traced any
// more, which would reveal its server key, and can not gain privileges. Errors are ignored.
func ConfineService() { confine() }

// CheckKeyFile returns an error if users other than its owner can read or write the key file,
// and chmod could prevent that, or if it is neither a regular file nor a pipe. On media without
// modes (FAT, NTFS, many network and FUSE file systems), and on media that are read-only, the
// owner can not change the modes, so there is no error for them.
func CheckKeyFile(path string) error {
	if runtime.GOOS == "windows" {
		return nil
	}
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	if !fi.Mode().IsRegular() && fi.Mode()&fs.ModeNamedPipe == 0 {
		return fmt.Errorf("%s is not a regular file: expected the file of a key", path)
	}
	mode := fi.Mode().Perm()
	if mode&0o077 == 0 || !CanRestrict(path, 0o077) {
		return nil
	}
	if !mayChangeMode(fi) {
		return fmt.Errorf("%s can be read or changed by other users (mode %v), and belongs to one: have it chmod-ed to 600 by its owner, or copy it to a folder of your own (\"install -m 600\") and name the copy", path, mode)
	}
	return fmt.Errorf("%s can be read or changed by other users (mode %v): nobody but you may; first \"chmod 600 %s\", and ask yourself who may have read it already", path, mode, shell.Quote(path))
}

// CanRestrict reports whether the owner of a file or folder can remove the given mode
// bits, of which it has at least one. There is no list of the file systems without modes, so
// CanRestrict changes and restores the mode of a file that belongs to this user. It assumes
// that modes have an effect if the file belongs to another user, or if it is not safe to try:
// in a folder of another user, who could replace the file with a link to a file of the superuser.
func CanRestrict(path string, bits fs.FileMode) bool {
	fi, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" {
		return false
	}
	if !fi.Mode().IsRegular() && !fi.IsDir() || CheckSuperuserWrites(filepath.Dir(path)) != nil {
		return true
	}
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return true
	}
	defer f.Close()
	fi, err = f.Stat()
	if err != nil {
		return true
	}
	if owner, known := ownerOf(fi); known && owner != os.Geteuid() {
		return true
	}
	before := fi.Mode()
	if err := f.Chmod(before &^ bits); err != nil {
		return false
	}
	fi, err = f.Stat()
	if err == nil && fi.Mode() == before {
		return false
	}
	_ = f.Chmod(before)
	return err == nil && fi.Mode()&bits == 0
}
