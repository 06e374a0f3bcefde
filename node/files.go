package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

// maxFile bounds every file that is read from the node's directory. The
// largest that belongs there is a certificate with a human-readable dump.
const maxFile = 1 << 20

// lockWait is how long a command waits for another command on the same
// directory to finish.
const lockWait = 10 * time.Second

// readFile reads a regular file of at most maxFile bytes.
func readFile(path string) ([]byte, error) { return readUpTo(path, maxFile) }

func readUpTo(path string, most int64) ([]byte, error) {
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
		return nil, fmt.Errorf("%s is larger than %d bytes, which no file there should be", path, most)
	}
	return data, nil
}

// readLine reads a file that holds one line, with or without its line end.
func readLine(path string) (string, error) {
	data, err := readFile(path)
	if err != nil {
		return "", err
	}
	s := strings.TrimSuffix(strings.TrimSuffix(string(data), "\n"), "\r")
	if strings.ContainsAny(s, "\r\n") {
		return "", fmt.Errorf("%s holds more than one line", path)
	}
	return s, nil
}

// exists tells whether path exists. Any doubt, such as a directory that may
// not be searched, is an error: "absent" has consequences here.
func exists(path string) (bool, error) {
	_, err := os.Stat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

// writeFile replaces a file as a whole: whoever reads sees the old content or
// the new one, after a crash too. The file's directory must exist.
func writeFile(path string, data []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}
	if err := os.Rename(tmp, path); err != nil {
		os.Remove(tmp)
		return err
	}
	return syncDir(filepath.Dir(path))
}

// CreateFile writes a new file as a whole and fails with fs.ErrExist where
// there is one already, however two commands race for it.
func CreateFile(path string, data []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(path, data, mode)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	// A hard link, unlike a rename, never replaces.
	err = os.Link(tmp, path)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		// Not every file system has hard links (FAT on a USB stick, for one).
		var f *os.File
		if f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode); err != nil {
			return err
		}
		if _, err = f.Write(data); err == nil {
			err = f.Sync()
		}
		if err = errors.Join(err, f.Close()); err != nil {
			os.Remove(path)
		}
	}
	if err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func writeTemp(path string, data []byte, mode fs.FileMode) (string, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".tmp-")
	if err != nil {
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

// syncDir makes a rename or a new name in the directory durable.
func syncDir(path string) error {
	if runtime.GOOS == "windows" {
		return nil // directories can not be synced there
	}
	d, err := os.Open(path)
	if err != nil {
		return err
	}
	defer d.Close()
	return d.Sync()
}

// lock keeps other peerlink commands off the directory until the returned
// function is called. The reference scripts lock only their counter files;
// what they share with us is made safe by exclusive creation instead.
func (d *Dir) lock(ctx context.Context) (unlock func(), err error) {
	// Locking the db directory itself leaves no trace in a folder that
	// operators keep under git. Windows can lock files only.
	path, flag := d.file("db"), os.O_RDONLY
	if runtime.GOOS == "windows" {
		path, flag = d.file("db", ".lock"), os.O_CREATE|os.O_RDWR
	}
	l := flock.New(path, flock.SetFlag(flag))
	ctx, cancel := context.WithTimeout(ctx, lockWait)
	defer cancel()
	ok, err := l.TryLockContext(ctx, 50*time.Millisecond)
	if errors.Is(err, context.DeadlineExceeded) || (err == nil && !ok) {
		return nil, fmt.Errorf("another peerlink command is working on %s: try again when it is done", d.path)
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", d.path, err)
	}
	return func() { l.Unlock() }, nil
}

// ReplaceKeyFile puts a newly encrypted root key in the place of an old one.
// The new file is read back, and has to pass check, before the old one goes.
func ReplaceKeyFile(path string, pem []byte, check func(pem []byte) error) error {
	tmp, err := writeTemp(path, pem, 0o600)
	if err != nil {
		return err
	}
	defer os.Remove(tmp)
	back, err := readFile(tmp)
	if err != nil {
		return err
	}
	if err := check(back); err != nil {
		return fmt.Errorf("the new key file can not be opened, the old one stays: %w", err)
	}
	if err := os.Rename(tmp, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}
