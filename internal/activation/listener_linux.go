package activation

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

var (
	errNotTCP       = errors.New("it is not a TCP socket: expected ListenStream= with an address and a port")
	errNotListening = errors.New("it is not a listening socket, but a connection: expected Accept=no")
)

// listener returns a listener for a file descriptor that was passed to this process, and has passed check.
func listener(fd int) (net.Listener, error) {
	unix.CloseOnExec(fd)
	file := os.NewFile(uintptr(fd), "socket")
	defer file.Close() // FileListener makes a copy
	return net.FileListener(file)
}

// check returns an error if a file descriptor is not that of a listening TCP socket.
func check(fd int) error {
	var options [4]int
	for i, option := range []int{unix.SO_TYPE, unix.SO_DOMAIN, unix.SO_PROTOCOL, unix.SO_ACCEPTCONN} {
		var err error
		if options[i], err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil {
			return fmt.Errorf("file descriptor %d is not a socket: %w", fd, err)
		}
	}
	kind, domain, protocol, listening := options[0], options[1], options[2], options[3]
	switch {
	case kind != unix.SOCK_STREAM, domain != unix.AF_INET && domain != unix.AF_INET6, protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_MPTCP:
		return errNotTCP
	case listening == 0:
		return errNotListening
	}
	return nil
}
