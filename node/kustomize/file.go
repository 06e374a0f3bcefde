package kustomize

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
)

// maxFile is the maximum size of a file in bytes, enough for more than ten thousand peers.
const maxFile = 1 << 20

// read reads a file of at most maxFile bytes. If the file does not exist, it returns nil.
func read(path string) ([]byte, error) {
	data, err := durable.Read(path, maxFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// replace replaces a file atomically. If the file has the content already, it is not written, so that
// tools that watch it are not triggered.
func replace(path string, data []byte) error {
	// A file that cannot be read is replaced too.
	if old, err := read(path); err == nil && old != nil && bytes.Equal(old, data) {
		return nil
	}
	return durable.Replace(path, data, 0o644)
}

// createOnce creates a file atomically, unless it exists.
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

// lock excludes other updates until the returned function is called. If two updates edited the aggregator
// at once, one entry could be lost.
func lock(peersDir string) (unlock func(), err error) {
	if err := guard.CheckSuperuserWrites(peersDir); err != nil {
		return nil, err
	}
	return durable.Lock(context.Background(), peersDir)
}
