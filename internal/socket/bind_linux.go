package socket

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind creates the socket file with mode 0600, regardless of the umask: Linux gives the
// file the mode of the socket at binding. So at no time can other users connect.
func bind(path string) (net.Listener, error) {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); e != nil {
			return e
		}
		return err
	}}
	return config.Listen(context.Background(), "unix", path)
}
