// Package durable reads and writes files with the guarantees that a node's directory
// needs: a reader gets the old or the new content, never a part, and written files survive
// a power failure.
package durable

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
)

// Errors of [Read] for what no attempt later can read.
var (
	ErrNotRegular = errors.New("not a regular file")
	ErrLarger     = errors.New("larger")
)

// Read reads a regular file of up to limit bytes.
func Read(path string, limit int64) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		// Opening a named pipe would block.
		return nil, fmt.Errorf("%s is %w", path, ErrNotRegular)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is %w than %d bytes, which it should not be", path, ErrLarger, limit)
	}
	return data, nil
}

// ErrUnsynced is wrapped by errors that occur after the file was written and renamed:
// readers get the new content, but after a power failure the old content may be back.
var ErrUnsynced = errors.New("the file is written, but the disk does not confirm it")

// Replace writes a whole file, replacing the one at path. If path is a symbolic link, its
// target is replaced, and the link stays. The file's folder must exist.
func Replace(path string, data []byte, mode fs.FileMode) error {
	return ReplaceChecked(path, data, mode, nil)
}

// ReplaceChecked is [Replace], but the written content is read back, and check must accept
// it before the old file is replaced.
func ReplaceChecked(path string, data []byte, mode fs.FileMode, check func(written []byte) error) error {
	path, err := Target(path)
	if err != nil {
		return err
	}
	return replaceName(path, data, mode, check)
}

// ReplaceName is [Replace], but a symbolic link itself is replaced: in a folder where
// other users can create links, it could lead to any file.
func ReplaceName(path string, data []byte, mode fs.FileMode) error {
	return replaceName(path, data, mode, nil)
}

func replaceName(path string, data []byte, mode fs.FileMode, check func(written []byte) error) error {
	tmp, err := writeTemp(path, data, mode, ownerSource(path), check)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncNames(path)
}

// ownerSource returns the file at path, whose owner the file that replaces it gets, or nil if
// there is no such file or its owner must not be copied (see untrustedOwner).
func ownerSource(path string) fs.FileInfo {
	old, err := os.Lstat(path)
	if err != nil || !old.Mode().IsRegular() {
		return nil
	}
	if folder, err := os.Stat(filepath.Dir(path)); err != nil || untrustedOwner(old, folder) {
		return nil
	}
	return old
}

// Target returns the file that path denotes: path itself or, if it is a symbolic link, the
// target of the link. A dangling link is an error, which does not wrap [fs.ErrNotExist].
func Target(path string) (string, error) {
	fi, err := os.Lstat(path)
	if err != nil || fi.Mode()&fs.ModeSymlink == 0 {
		return path, nil // errors are reported when the file is used
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

// CheckLink returns an error if path is a symbolic link that another user may have put there: the link and
// its folder have different owners, others can create files in the folder, as in /tmp, and the link is not
// this user's.
func CheckLink(path string) error {
	link, err := os.Lstat(path)
	if err != nil || link.Mode()&fs.ModeSymlink == 0 {
		return nil // errors are reported when the file is used
	}
	folder, err := os.Stat(filepath.Dir(path))
	if err == nil && !isOwn(link) && untrustedOwner(link, folder) {
		return fmt.Errorf("%s is a symbolic link of another user, in a folder where everybody can make one: name another file, or remove the link", path)
	}
	return err
}

// CheckAbsent returns an error if there is a file at path, with advice for the operator, or if
// that can not be determined.
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

// CheckCreatable returns an error if there is a file at path, or if its folder does not
// exist or can not be written, so that [Create] would fail. It is for checks before
// anything else is done.
func CheckCreatable(path string) error {
	if err := CheckAbsent(path); err != nil {
		return err
	}
	tmp, err := writeTemp(path, nil, 0o600, nil, nil)
	if err != nil {
		return err
	}
	return os.Remove(tmp)
}

// Create writes a whole new file. It fails with [fs.ErrExist] if there is a file or a
// symbolic link already, also if two processes race.
func Create(path string, data []byte, mode fs.FileMode) error {
	return CreateChecked(path, data, mode, nil)
}

// CreateChecked is [Create], but the written content is read back, and check must accept
// it before the file gets its name.
func CreateChecked(path string, data []byte, mode fs.FileMode, check func(written []byte) error) error {
	tmp, err := writeTemp(path, data, mode, nil, check)
	if err != nil {
		return err
	}
	return (&Prepared{tmp, path}).Create()
}

// Prepared is a new file of which the content is on the disk, but not yet under its name.
type Prepared struct{ tmp, path string }

// Prepare is the first part of [Create]: it writes the content. The caller must call
// Create or Discard on the result. Whatever else has to be done if and only if the file is
// written is done in between.
func Prepare(path string, data []byte, mode fs.FileMode) (*Prepared, error) {
	if err := CheckAbsent(path); err != nil {
		return nil, err
	}
	tmp, err := writeTemp(path, data, mode, nil, nil)
	if err != nil {
		return nil, err
	}
	return &Prepared{tmp, path}, nil
}

// PrepareEmpty is [Prepare] for content that the caller writes to the file at Path, and not all at
// once. It has mode 0600. There may be a file at path already, for Replace.
func PrepareEmpty(path string) (*Prepared, error) {
	tmp, err := writeTemp(path, nil, 0o600, nil, nil)
	if err != nil {
		return nil, err
	}
	return &Prepared{tmp, path}, nil
}

// Path returns where the content is until Create or Replace.
func (p *Prepared) Path() string { return p.tmp }

// Sync writes the content to the disk. Without it, content that was written to Path may be missing
// after a power failure.
func (p *Prepared) Sync() error {
	f, err := os.OpenFile(p.tmp, os.O_RDWR, 0)
	if err != nil {
		return withPath(err, p.path)
	}
	err = f.Sync()
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	return withPath(err, p.path)
}

// Replace gives the file its name, replacing a file that has the name already, whose owner it gets as with
// [ReplaceName].
func (p *Prepared) Replace() error {
	if old := ownerSource(p.path); old != nil {
		f, err := os.OpenFile(p.tmp, os.O_RDWR, 0)
		if err != nil {
			return withPath(err, p.path)
		}
		copyOwner(f, old)
		f.Close()
	}
	if err := os.Rename(p.tmp, p.path); err != nil {
		os.Remove(p.tmp)
		return err
	}
	return syncNames(p.path)
}

// Create gives the file its name. It fails with [fs.ErrExist] if the name is used already.
func (p *Prepared) Create() error {
	// Unlike a rename, a hard link never replaces a file.
	err := os.Link(p.tmp, p.path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Some file systems have no hard links, such as FAT on a USB stick.
		err = moveNew(p.tmp, p.path)
	}
	os.Remove(p.tmp)
	if err != nil {
		return err
	}
	return syncNames(p.path)
}

// Discard removes the content. After Create or Replace it does nothing.
func (p *Prepared) Discard() { os.Remove(p.tmp) }

// CreateEmpty creates an empty file, which takes no space on most file systems. It fails
// with [fs.ErrExist] if there is a file or a symbolic link already.
func CreateEmpty(path string, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return ExplainFull(filepath.Dir(path), err)
	}
	if err := f.Close(); err != nil {
		return err
	}
	return syncNames(path)
}

// moveNew moves a file to a new name. It first creates an empty file of this name, which
// the move replaces: no reader gets a part of the content.
func moveNew(from, to string) error {
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return ExplainFull(filepath.Dir(to), err)
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

// writeTemp writes a temporary file beside path. If old is not nil, the file gets its owner.
// If check is not nil, it is called with the content as read back from the disk.
func writeTemp(path string, data []byte, mode fs.FileMode, old fs.FileInfo, check func(written []byte) error) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path))
	if err != nil {
		return "", ExplainFull(filepath.Dir(path), withPath(err, path))
	}
	_, err = f.Write(data)
	if err == nil {
		err = ignoreNoModes(f.Chmod(mode))
	}
	if err == nil {
		if old != nil {
			copyOwner(f, old)
		}
		err = f.Sync()
	}
	if err == nil && check != nil {
		forget(f)
	}
	if err == nil {
		err = f.Close()
	} else {
		f.Close()
	}
	if err == nil && check != nil {
		err = readBack(f.Name(), len(data), check)
	}
	if err != nil {
		os.Remove(f.Name())
		return "", withPath(err, path)
	}
	return f.Name(), nil
}

// withPath changes the path in an error about a temporary file to the path of the file that is
// to be created or replaced.
func withPath(err error, path string) error {
	var pathErr *fs.PathError
	if errors.As(err, &pathErr) {
		pathErr.Path = path
	}
	return err
}

// tempPrefix is the beginning of the name of a temporary file beside path. A number follows.
func tempPrefix(path string) string { return "." + filepath.Base(path) + ".tmp-" }

// Leftovers returns the temporary files beside path that interrupted writes of this file have
// left, or that are being written now. If path is a symbolic link, they are beside its
// target.
func Leftovers(path string) ([]string, error) {
	path, err := Target(path)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(filepath.Dir(path))
	if err != nil {
		return nil, err
	}
	var found []string
	for _, e := range entries {
		number, ok := strings.CutPrefix(e.Name(), tempPrefix(path))
		if ok && number != "" && strings.Trim(number, "0123456789") == "" && e.Type().IsRegular() {
			found = append(found, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return found, nil
}

func readBack(path string, size int, check func(written []byte) error) error {
	written, err := Read(path, int64(size))
	if err != nil {
		return err
	}
	defer clear(written)
	return check(written)
}

// Chmod sets the mode of a file or folder that this process has just created. Some file
// systems have no modes: FAT, NTFS, CIFS and many FUSE file systems ignore or refuse them.
// Their files have the mode set at mounting, which is not an error.
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
	return syncFolder(func() (*os.File, error) { return os.Open(path) })
}

func syncFolder(open func() (*os.File, error)) error {
	if runtime.GOOS == "windows" {
		return nil // folders can not be synced on Windows
	}
	d, err := open()
	if err != nil {
		return err
	}
	defer d.Close()
	err = d.Sync()
	if errors.Is(err, errors.ErrUnsupported) || errors.Is(err, syscall.EINVAL) {
		return nil // nor on every network file system
	}
	return err
}
