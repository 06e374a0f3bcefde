//go:build unix && !linux

package socket

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// umask guards the process's umask.
var umask sync.Mutex

// bind makes the socket file with mode 0600, so there is no moment at which
// others could connect. Files that are made meanwhile elsewhere in this process
// are at most more private than they should be.
func bind(path string) (net.Listener, error) {
	umask.Lock()
	defer umask.Unlock()
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}
