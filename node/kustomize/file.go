package kustomize

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"

	"peerlink/internal/durable"
)

// maxFile bounds what is read: room for ten thousand peers and more.
const maxFile = 1 << 20

// read reads a file of at most maxFile bytes; one that does not exist is empty.
func read(path string) ([]byte, error) {
	data, err := durable.Read(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// replace writes a file as a whole. A file that has the content already is not
// touched, so that tools which watch it see changes only.
func replace(path string, data []byte) error {
	// What can not be read is replaced like anything else.
	if old, err := read(path); err == nil && old != nil && bytes.Equal(old, data) {
		return nil
	}
	return durable.Replace(path, data, 0o644)
}

// createOnce writes a file as a whole where there is none. Whatever is there
// already stays.
func createOnce(path string, data []byte) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := durable.Create(path, data, 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// lock keeps two updates from editing the aggregator at once, which would lose
// one peer's entry, until the returned function is called.
func lock(peersDir string) (unlock func(), err error) {
	return durable.Lock(context.Background(), peersDir)
}
