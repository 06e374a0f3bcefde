//go:build unix && !linux

package socket

import (
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// umask guards the process's umask.
var umask sync.Mutex

// bind creates the socket file with mode 0600, so that at no time can other users connect.
// Files created concurrently by other goroutines may get more restrictive modes than
// intended.
func bind(path string) (net.Listener, error) {
	umask.Lock()
	defer umask.Unlock()
	old := unix.Umask(0o177)
	defer unix.Umask(old)
	return net.Listen("unix", path)
}
