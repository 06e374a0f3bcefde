// Package socket listens on Unix sockets that belong to one user, and survives
// what a crashed process has left behind.
package socket

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"time"
)

// MaxPath is the longest path of a Unix socket in bytes: macOS has room for 104
// with the final NUL, Linux for 108.
const MaxPath = 103

var (
	// ErrInUse means that another process listens on the socket.
	ErrInUse = errors.New("another process listens there")
	// ErrPathTooLong means that no Unix socket can have this path.
	ErrPathTooLong = errors.New("path is too long for a Unix socket")
)

// Listen listens on a Unix socket that only this user can connect to. A socket
// file that nobody listens on any more is replaced. It reports [ErrInUse] and
// [ErrPathTooLong].
func Listen(path string) (net.Listener, error) {
	if len(path) > MaxPath {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are possible", ErrPathTooLong, path, len(path), MaxPath)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := bind(path)
	if err != nil {
		return nil, err
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

// removeStale removes a socket that nobody listens on.
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
	if nc, err := net.DialTimeout("unix", path, time.Second); err == nil {
		nc.Close()
		return fmt.Errorf("%w: %s; is \"peerlink serve\" running?", ErrInUse, path)
	}
	return os.Remove(path)
}
