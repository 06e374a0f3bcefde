// Package socket listens on Unix sockets that belong to one user, and removes those of
// crashed processes.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"peerlink/internal/durable"
)

// MaxPath is the longest path of a Unix socket in bytes: macOS has 104 bytes including the
// final NUL, Linux 108.
const MaxPath = 103

var (
	// ErrInUse is returned if another process listens on the socket.
	ErrInUse = errors.New("another process listens there")
	// ErrPathTooLong is returned for a path longer than MaxPath.
	ErrPathTooLong = errors.New("path is too long for a Unix socket")
)

// Listen listens on a Unix socket that only this user can connect to. It replaces a socket
// file without a listener. Its errors may wrap [ErrInUse] or [ErrPathTooLong].
func Listen(path string) (net.Listener, error) {
	if len(path) > MaxPath {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are possible", ErrPathTooLong, path, len(path), MaxPath)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		return nil, durable.ExplainFull(filepath.Dir(path), err)
	}
	info, err := os.Lstat(path)
	if err == nil && runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		err = fmt.Errorf("other users could connect to %s (mode %v): this file system does not keep modes; choose another folder", path, info.Mode().Perm())
	}
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	return l, nil
}

// removeStale removes a socket to which no connection can be made, as one without a listener.
func removeStale(path string) error {
	info, err := os.Lstat(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if info.Mode()&fs.ModeSocket == 0 {
		return fmt.Errorf("%s is in the way of a Unix socket, and is not a socket: move it away", path)
	}
	nc, err := net.DialTimeout("unix", path, time.Second)
	if err == nil {
		nc.Close()
	}
	var netErr net.Error
	if err == nil || errors.As(err, &netErr) && netErr.Timeout() { // or the backlog is full (EAGAIN)
		return fmt.Errorf("%w: %s; is \"peerlink serve\" running?", ErrInUse, path)
	}
	return os.Remove(path)
}
