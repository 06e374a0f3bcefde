package local

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"time"
)

// maxSocketPath is the longest path of a Unix socket in bytes: macOS has room
// for 104 with the final NUL, Linux for 108.
const maxSocketPath = 103

var (
	// ErrNotLoopback means that the door was told to listen on an address that
	// other machines can reach.
	ErrNotLoopback = errors.New("local: not a loopback address")
	// ErrInUse means that another process has its door open on the same state
	// folder.
	ErrInUse = errors.New("local: door is open already")

	errPathTooLong = errors.New("path is too long for a Unix socket")
)

// listenTCP listens on a loopback address.
func listenTCP(address string) (net.Listener, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for local applications on %q: %w; expected an address like %s", address, err, DefaultListen)
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("%w: refused to listen for local applications on %q, which other machines could reach without encryption; expected an address like %s",
			ErrNotLoopback, address, DefaultListen)
	}
	l, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, fmt.Errorf("listen for local applications: %w; if another node on this machine has this port, choose another", err)
	}
	return l, nil
}

// listenUnix listens on a Unix socket that only this user can connect to. A
// socket file that a crashed process has left behind is replaced.
func listenUnix(path string) (net.Listener, error) {
	if len(path) > maxSocketPath {
		return nil, fmt.Errorf("%w: %s has %d bytes, at most %d are possible", errPathTooLong, path, len(path), maxSocketPath)
	}
	if err := removeStale(path); err != nil {
		return nil, err
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen for local applications: %w", err)
	}
	// Until here the umask decides who may connect. Nobody is accepted yet, and
	// all have to show the passcode.
	if err := os.Chmod(path, 0o600); err != nil {
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
		return fmt.Errorf("%s is in the way of the Unix socket for local applications, and is not a socket: move it away", path)
	}
	if nc, err := net.DialTimeout("unix", path, time.Second); err == nil {
		nc.Close()
		return fmt.Errorf("%w: another process listens on %s; is \"peerlink serve\" running?", ErrInUse, path)
	}
	return os.Remove(path)
}
