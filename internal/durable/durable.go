// Package durable reads and writes files the way a node's directory needs it:
// whoever reads sees the old content or the new one, never a part, and what was
// written is still there after a power cut.
package durable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/gofrs/flock"
)

// LockWait is how long [Lock] waits for somebody else to finish.
const LockWait = 10 * time.Second

// Read reads a regular file of at most so many bytes.
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

// Replace writes a file as a whole, in the place of what is there. The file's
// folder must exist.
func Replace(path string, data []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}
	return moveTo(path, tmp)
}

// ReplaceChecked is [Replace], but what was written is read back, and must pass
// check, before the old file goes.
func ReplaceChecked(path string, data []byte, mode fs.FileMode, check func(written []byte) error) error {
	tmp, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}
	written, err := Read(tmp, int64(len(data)))
	if err == nil {
		err = check(written)
	}
	if err != nil {
		os.Remove(tmp)
		return err
	}
	return moveTo(path, tmp)
}

// moveTo puts a finished temporary file in its place.
func moveTo(path, tmp string) error {
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return SyncDir(filepath.Dir(path))
}

// Create writes a new file as a whole, and fails with [fs.ErrExist] where there
// is one already, however two processes race for it.
func Create(path string, data []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	// A hard link, unlike a rename, never replaces.
	err = os.Link(tmp, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Not every file system has hard links (FAT on a USB stick, for one).
		err = createDirectly(path, data, mode)
	}
	if err != nil {
		return err
	}
	return SyncDir(filepath.Dir(path))
}

func createDirectly(path string, data []byte, mode fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	if _, err = f.Write(data); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(path)
	}
	return err
}

func writeTemp(path string, data []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		var pathErr *fs.PathError
		if errors.As(err, &pathErr) {
			pathErr.Path = path // whoever reads this knows of no other
		}
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(mode)
	}
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		os.Remove(f.Name())
		return "", err
	}
	return f.Name(), nil
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
	return d.Sync()
}

// Lock keeps other processes that lock the same folder waiting until the
// returned function is called.
func Lock(ctx context.Context, dir string) (unlock func(), err error) {
	// Locking the folder itself leaves no trace in what operators keep under
	// git. Windows can lock files only.
	path, flag := dir, os.O_RDONLY
	if runtime.GOOS == "windows" {
		path, flag = filepath.Join(dir, ".lock"), os.O_CREATE|os.O_RDWR
	}
	l := flock.New(path, flock.SetFlag(flag))
	ctx, cancel := context.WithTimeout(ctx, LockWait)
	defer cancel()
	ok, err := l.TryLockContext(ctx, 20*time.Millisecond)
	if errors.Is(err, context.DeadlineExceeded) || err == nil && !ok {
		return nil, fmt.Errorf("another command is working on %s: try again when it is done", dir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { l.Unlock() }, nil
}
