package guard

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"

	"peerlink/internal/shell"
)

// CheckOwner returns an error if a file or folder belongs neither to this user nor to the
// superuser: its owner can always read and change it. If this process is the superuser's by
// means of sudo, the user who has called sudo is permitted too.
func CheckOwner(path string) error {
	fi, err := os.Stat(path)
	if err != nil {
		return err
	}
	return checkOwner(path, fi)
}

// CheckOwnerInFolder is CheckOwner for an open file. The owner of its folder is permitted
// too: this user can replace the file in any case.
func CheckOwnerInFolder(f *os.File) error {
	fi, err := f.Stat()
	if err != nil {
		return err
	}
	folder, err := os.Stat(filepath.Dir(f.Name()))
	if err != nil {
		return err
	}
	owner, known := ownerOf(fi)
	if folderOwner, _ := ownerOf(folder); known && owner == folderOwner {
		return nil
	}
	return checkOwner(f.Name(), fi)
}

func checkOwner(path string, fi fs.FileInfo) error {
	owner, known := ownerOf(fi)
	if !known || owner == 0 || owner == os.Geteuid() {
		return nil
	}
	if os.Geteuid() == 0 && os.Getenv("SUDO_UID") == strconv.Itoa(owner) {
		return nil
	}
	if fi.IsDir() {
		return fmt.Errorf("%s belongs to another user (%d), who can read and change what is in it: expected a folder of your own (user %d); choose another one, or work as that user", path, owner, os.Geteuid())
	}
	return fmt.Errorf("%s belongs to another user (%d), who can read and change it: expected a file of your own (user %d); take a copy (\"install -m 600\"), or work as that user", path, owner, os.Geteuid())
}

// ErrUnsafeForSuperuser is wrapped by the errors of [CheckSuperuserWrites] and
// [CheckSuperuserShares].
var ErrUnsafeForSuperuser = errors.New("root does not write there")

// CheckSuperuserWrites returns an error if this process is that of the superuser (Unix root), and
// one of the folders, or a folder above it, belongs to another user, or if a symbolic link to one
// does. That user could make the superuser write into any file by means of symbolic links, and
// could not read or change what the superuser creates. Folders that do not exist are ignored.
func CheckSuperuserWrites(folders ...string) error { return checkPaths(checkSuperuserOwns, folders) }

// checkPaths calls check for the folders, for all folders above them, and for everything that
// symbolic links among them pass through, if this process is that of the superuser.
func checkPaths(check func(path string, fi fs.FileInfo) error, folders []string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	w := pathWalk{checked: make(map[string]bool), check: check}
	for _, path := range folders {
		if err := w.walk(path); err != nil {
			return err
		}
	}
	return nil
}

type pathWalk struct {
	checked map[string]bool // so symbolic links in a circle do not matter
	check   func(path string, fi fs.FileInfo) error
}

func (w *pathWalk) walk(path string) error {
	path, err := filepath.Abs(path)
	if err != nil || w.checked[path] || path == filepath.Dir(path) {
		return err
	}
	w.checked[path] = true
	if err := w.walk(filepath.Dir(path)); err != nil {
		return err
	}
	fi, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if err := w.check(path, fi); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return err
	}
	target, err := os.Readlink(path)
	if err != nil {
		return err
	}
	if !filepath.IsAbs(target) {
		// Relative to the folder of the link, whose real path differs from the one in path if
		// there is a link among the folders above it, too.
		folder, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return err
		}
		target = filepath.Join(folder, target)
	}
	return w.walk(target)
}

// checkSuperuserOwns returns an error if a folder, or a symbolic link, belongs to another user
// than the superuser.
func checkSuperuserOwns(path string, fi fs.FileInfo) error {
	if owner, known := ownerOf(fi); known && owner != 0 {
		return fmt.Errorf("%s belongs to another user (%s), who could redirect what is written to any file, so %w: work as that user (\"sudo -u %s peerlink ...\"), with copies of the files that the command needs where that user can read them; a root key that is to stay root's signs by \"request new\", \"fulfil\" and \"request file\"", path, describeUser(owner), ErrUnsafeForSuperuser, userName(owner))
	}
	return nil
}

// CheckSuperuserShares returns an error if this process is that of the superuser (Unix root), and
// a group other than root's, or all users, can create and replace files in one of the folders, or
// in one above it, unless it has the sticky bit. Links are followed as by CheckSuperuserWrites.
func CheckSuperuserShares(folders ...string) error { return checkPaths(checkSuperuserShares, folders) }

func checkSuperuserShares(path string, fi fs.FileInfo) error {
	group, known := groupOf(fi)
	open := fi.Mode().Perm()
	if !known || !fi.IsDir() || fi.Mode()&fs.ModeSticky != 0 || open&0o002 == 0 && (open&0o020 == 0 || group == 0) {
		return nil
	}
	if !canRestrict(path, open&0o022) {
		return fmt.Errorf("%w; %w", noModes(path, fi.Mode()), ErrUnsafeForSuperuser)
	}
	return fmt.Errorf("other users can replace files in %s (mode %v), so %w: \"chmod go-w %s\", or work as another user", path, fi.Mode(), ErrUnsafeForSuperuser, shell.Quote(path))
}

// canRestrict is [CanRestrict], except in tests of folders on media without modes.
var canRestrict = CanRestrict

// userName returns the name of a user or, if there is none, what sudo takes instead.
func userName(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return u.Username
	}
	return "'#" + strconv.Itoa(uid) + "'"
}

func describeUser(uid int) string {
	if u, err := user.LookupId(strconv.Itoa(uid)); err == nil {
		return fmt.Sprintf("%s, %d", u.Username, uid)
	}
	return strconv.Itoa(uid)
}

// CheckFolder returns an error if every user can create files in a folder, even if it has the
// sticky bit, or if it belongs to another user; for the superuser also if a folder above it does.
func CheckFolder(path string) error {
	fi, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" {
		return err
	}
	if fi.Mode().Perm()&0o002 != 0 {
		if !CanRestrict(path, 0o002) {
			return noModes(path, fi.Mode())
		}
		return fmt.Errorf("every user can make and replace files in %s (mode %v): \"chmod 700 %s\", or choose one to which only you can write", path, fi.Mode(), shell.Quote(path))
	}
	if err := CheckSuperuserWrites(path); err != nil {
		return err
	}
	return CheckOwner(path)
}

// CheckNewFolder returns an error if a folder that does not exist yet would be made on a medium without
// file modes, where every user could replace what is in it.
func CheckNewFolder(path string) error {
	path, err := filepath.Abs(path)
	if err != nil {
		return err
	}
	fi, err := os.Stat(path)
	for ; errors.Is(err, fs.ErrNotExist) && path != filepath.Dir(path); fi, err = os.Stat(path) {
		path = filepath.Dir(path)
	}
	if err != nil || runtime.GOOS == "windows" {
		return err
	}
	if fi.IsDir() && fi.Mode().Perm()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 && !canRestrict(path, 0o002) {
		return noModes(path, fi.Mode())
	}
	return nil
}

// CheckFolderPath returns an error if other users can create files in a folder, or replace it. The folder
// need not exist.
func CheckFolderPath(dir string) error {
	if err := CheckFolder(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	for path := dir; path != filepath.Dir(path); path = filepath.Dir(path) {
		if err := CheckParentFolder(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// OpenToAll returns the first of the folders in which every user can create and replace
// files although this process may change its mode; "" if there is none.
func OpenToAll(folders ...string) string {
	for _, path := range folders {
		fi, err := os.Stat(path)
		if err == nil && runtime.GOOS != "windows" && fi.Mode().Perm()&0o002 != 0 && fi.Mode()&fs.ModeSticky == 0 && mayChangeMode(fi) {
			return path
		}
	}
	return ""
}

// OpenToGroup reports whether a group can create and replace files in a folder although this
// process can change its mode.
func OpenToGroup(path string) bool {
	fi, err := os.Stat(path)
	return err == nil && runtime.GOOS != "windows" && fi.Mode().Perm()&0o020 != 0 && fi.Mode()&fs.ModeSticky == 0 && mayChangeMode(fi) && CanRestrict(path, 0o020)
}

// CheckParentFolder returns an error if every user can replace path, because its folder is
// writable for all, and has no sticky bit (as /tmp has).
func CheckParentFolder(path string) error {
	folder := filepath.Dir(path)
	fi, err := os.Stat(folder)
	if err != nil || runtime.GOOS == "windows" {
		return err
	}
	if fi.Mode().Perm()&0o002 == 0 || fi.Mode()&fs.ModeSticky != 0 || !CanRestrict(folder, 0o002) {
		return nil
	}
	return fmt.Errorf("every user can replace files in %s (mode %v): \"chmod o-w %s\" prevents that", folder, fi.Mode(), shell.Quote(folder))
}

// CheckPrivateFolder returns an error if a folder is on a medium without file modes and is
// mounted with a mode that gives access to other users: files created there could not be
// protected.
func CheckPrivateFolder(path string) error {
	fi, err := os.Stat(path)
	if err != nil || runtime.GOOS == "windows" {
		return err
	}
	if open := fi.Mode().Perm() & 0o077; open != 0 && !CanRestrict(path, open) {
		return noModes(path, fi.Mode())
	}
	return nil
}

func noModes(path string, mode fs.FileMode) error {
	return fmt.Errorf("%s is on a medium that keeps no file modes, and other users can read or change what is there (mode %v): mount it with the options \"uid=%d,umask=077\", or choose a folder on another medium", path, mode, os.Geteuid())
}

// CheckSecretFile checks the access to a file that has a secret but may have been created
// by other means, such as a container runtime: it returns an error if every user can
// change it or it belongs to another user, and a warning, without the file's name, if
// others can read it. Files that are not regular, such as pipes, are not checked.
func CheckSecretFile(path string) (warning string, err error) {
	fi, err := os.Stat(path)
	if err != nil || !fi.Mode().IsRegular() || runtime.GOOS == "windows" {
		return "", err
	}
	if err := CheckOwner(path); err != nil {
		return "", err
	}
	mode := fi.Mode().Perm()
	switch {
	case mode&0o077 == 0 || !CanRestrict(path, mode&0o077):
		return "", nil
	case mode&0o002 != 0:
		return "", fmt.Errorf("every user can change %s (mode %v): \"chmod 600 %s\", and look at what is in it", path, mode, shell.Quote(path))
	}
	can := "read"
	if mode&0o020 != 0 {
		can = "read or changed"
	}
	return fmt.Sprintf("can be %s by other users (mode %v): \"chmod 600\" keeps them out", can, mode), nil
}
