package kustomize

import (
	"bytes"
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

const (
	// maxFile bounds what is read: room for ten thousand peers and more.
	maxFile = 1 << 20
	// lockWait is how long an [Update] waits for another one.
	lockWait = 10 * time.Second
)

// read reads a file of at most maxFile bytes; one that does not exist is empty.
func read(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s is larger than %d bytes", path, maxFile)
	}
	return data, err
}

// replace writes a file as a whole: whoever reads sees the old content or the
// new one, after a crash too. A file that has the content already is not
// touched, so that tools which watch it see changes only.
func replace(path string, data []byte) error {
	// What can not be read is replaced like anything else.
	if old, err := read(path); err == nil && old != nil && bytes.Equal(old, data) {
		return nil
	}
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// createOnce writes a file as a whole where there is none. Whatever is there
// already stays.
func createOnce(path string, data []byte) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	tmp, err := writeTemp(path, data)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	// A hard link, unlike a rename, never replaces. Where there are none, what
	// has just been looked at must do.
	if err := os.Link(tmp, path); errors.Is(err, fs.ErrExist) {
		return nil
	} else if err != nil {
		if err := os.Rename(tmp, path); err != nil {
			return err
		}
	}
	return syncDir(filepath.Dir(path))
}

func writeTemp(path string, data []byte) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
		return "", err
	}
	_, err = f.Write(data)
	if err == nil {
		err = f.Chmod(0o644)
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

// syncDir makes a rename or a new name in the folder durable.
func syncDir(path string) error {
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

// lock keeps two updates from editing the aggregator at once, which would lose
// one peer's entry, until the returned function is called.
func lock(peersDir string) (unlock func(), err error) {
	// Locking the folder itself leaves no trace in what operators keep under
	// git. Windows can lock files only.
	path, flag := peersDir, os.O_RDONLY
	if runtime.GOOS == "windows" {
		path, flag = filepath.Join(peersDir, ".kustomization.lock"), os.O_CREATE|os.O_RDWR
	}
	l := flock.New(path, flock.SetFlag(flag))
	ctx, cancel := context.WithTimeout(context.Background(), lockWait)
	defer cancel()
	ok, err := l.TryLockContext(ctx, 20*time.Millisecond)
	if errors.Is(err, context.DeadlineExceeded) || err == nil && !ok {
		return nil, fmt.Errorf("another command is working on %s: try again when it is done", peersDir)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", peersDir, err)
	}
	return func() { l.Unlock() }, nil
}
