package socket

import (
	"context"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// bind makes the socket file with mode 0600, whatever the umask is: Linux gives
// the file the mode that the socket has when it is bound. So there is no moment
// at which others could connect.
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
