// Package durable reads and writes files the way a node's directory needs it:
// a reader sees the old content or the new one, never a part, and what was
// written is still there after a power cut.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"syscall"
)

// Read reads a regular file of at most this number of bytes.
func Read(path string, most int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		// Opening a named pipe would wait for ever.
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, most+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > most {
		return nil, fmt.Errorf("%s is larger than %d bytes, which it should not be", path, most)
	}
	return data, nil
}

// ErrUnsynced is wrapped by errors that come after the file was written and put in
// its place: a reader sees the new content, but a power cut may bring
// the old one back.
var ErrUnsynced = errors.New("the file is written, but the disk does not confirm it")

// Replace writes a file as a whole, in the place of what is there. If path is a
// symbolic link, the file to which it leads is replaced, and the link stays. The
// file's folder must exist.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return ReplaceChecked(path, data, mode, nil)
}

// ReplaceChecked is [Replace], but what was written is read back, and must pass
// check, before the old file goes.
func ReplaceChecked(path string, data []byte, mode fs.FileMode, check func(written []byte) error) error {
	path, err := Target(path)
	if err != nil {
		return err
	}
	return replaceName(path, data, mode, check)
}

// ReplaceName is [Replace], but a symbolic link is replaced itself: in a folder where
// other users can make one, it could lead to any file.
func ReplaceName(path string, data []byte, mode fs.FileMode) error {
	return replaceName(path, data, mode, nil)
}

func replaceName(path string, data []byte, mode fs.FileMode, check func(written []byte) error) error {
	tmp, err := writeTemp(path, data, mode, check)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncNames(path)
}

// Target returns the file that is meant by path: path itself or, if it is a
// symbolic link, the file to which it leads. A link that leads to nothing is an
// error, which does not wrap [fs.ErrNotExist].
func Target(path string) (string, error) {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return path, nil // what is wrong with it is seen when it is used
	}
	file, err := filepath.EvalSymlinks(path)
	if errors.Is(err, fs.ErrNotExist) {
		to, _ := os.Readlink(path)
		return "", fmt.Errorf("%s is a symbolic link to %s, where there is nothing: connect the medium, or remove the link", path, to)
	}
	if err != nil {
		return "", fmt.Errorf("%s is a symbolic link that can not be followed: %w", path, err)
	}
	return file, nil
}

// CheckAbsent checks that there is nothing at path, where [Create] is going to make a
// file: an error says what to do about what is there.
func CheckAbsent(path string) error {
	_, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		_, err = Target(path)
	}
	if err != nil {
		return err
	}
	return fmt.Errorf("%s exists already: choose another name or remove it", path)
}

// Create writes a new file as a whole, and fails with [fs.ErrExist] where there
// is one already, or a symbolic link, however two processes race for it.
func Create(path string, data []byte, mode fs.FileMode) error {
	return CreateChecked(path, data, mode, nil)
}

// CreateChecked is [Create], but what was written is read back, and must pass
// check, before the file gets its name.
func CreateChecked(path string, data []byte, mode fs.FileMode, check func(written []byte) error) error {
	tmp, err := writeTemp(path, data, mode, check)
	if err != nil {
		return err
	}
	// A hard link, unlike a rename, never replaces.
	err = os.Link(tmp, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Not every file system has hard links (FAT on a USB stick, for one).
		err = moveNew(tmp, path)
	}
	os.Remove(tmp)
	if err != nil {
		return err
	}
	return syncNames(path)
}

// CreateEmpty makes a new file with nothing in it, which takes no room on most file
// systems, and fails with [fs.ErrExist] where there is one already, or a symbolic link.
func CreateEmpty(path string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncNames(path)
}

// moveNew moves a file to a name that must be free. The name is taken first, by an
// empty file that the move replaces: nobody sees a part of the content.
func moveNew(from, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	err = f.Close()
	if err == nil {
		err = os.Rename(from, to)
	}
	if err != nil {
		os.Remove(to)
	}
	return err
}

// writeTemp writes a temporary file beside path. If check is not nil, it gets what
// reads back from the disk.
func writeTemp(path string, data []byte, mode fs.FileMode, check func(written []byte) error) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			pathErr.Path = path // the caller knows of no other path
		}
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = ignoreNoModes(f.Chmod(mode))
	}
	if err == nil {
		keepOwner(f, path)
		err = f.Sync()
	}
	if err == nil && check != nil {
		forget(f)
	}
	if err = errors.Join(err, f.Close()); err == nil && check != nil {
		err = readBack(f.Name(), len(data), check)
	}
	if err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
}

func readBack(path string, size int, check func(written []byte) error) error {
	written, err := Read(path, int64(size))
	if err != nil {
		return err
	}
	defer clear(written)
	return check(written)
}

// Chmod sets the mode of a file or folder that this process has just made. Not
// every file system has modes: FAT, NTFS, CIFS and many of FUSE's ignore or refuse
// them. There a file has the mode with which the medium was mounted, and that is
// no error.
func Chmod(path string, mode fs.FileMode) error { return ignoreNoModes(os.Chmod(path, mode)) }

func ignoreNoModes(err error) error {
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil
	}
	return err
}

// syncNames makes the new name of a file durable.
func syncNames(path string) error {
	if err := SyncDir(filepath.Dir(path)); err != nil {
		return fmt.Errorf("%w: %w", ErrUnsynced, err)
	}
	return nil
}

// SyncDir makes a rename or a new name in the folder durable.
func SyncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // folders can not be synced there
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil // nor can they be on every network file system
	}
	return err
}
