package durable

import (
	"crypto/rand"
	"io/fs"
	"os"
	"path"
)

// ReplaceIn is like [Replace] for a file below root, with a slash-separated name. No symbolic
// link leads out of root, and a link in place of the file is replaced. No error wraps
// [ErrUnsynced].
func ReplaceIn(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	tmp := path.Join(path.Dir(name), tempPrefix(path.Base(name))+randomDigits())
	if err := writeIn(root, tmp, data, mode); err != nil {
		root.Remove(tmp)
		return withPath(err, name)
	}
	if err := root.Rename(tmp, name); err != nil {
		root.Remove(tmp)
		return err
	}
	return syncDirIn(root, path.Dir(name))
}

func writeIn(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	f, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(data); err != nil {
		return err
	}
	if err := ignoreNoModes(f.Chmod(mode)); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

func syncDirIn(root *os.Root, name string) error {
	return syncFolder(func() (*os.File, error) { return root.Open(name) })
}

// randomDigits returns the number in the name of a temporary file.
func randomDigits() string {
	var b [12]byte
	rand.Read(b[:])
	for i := range b {
		b[i] = '0' + b[i]%10
	}
	return string(b[:])
}
