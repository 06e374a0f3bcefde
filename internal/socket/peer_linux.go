package socket

import (
	"fmt"
	"io/fs"
	"net"
	"syscall"

	"golang.org/x/sys/unix"
)

// CheckListener returns an error if the process that listens on the other end of a Unix
// socket belongs neither to the superuser nor to the owner of a file. The kernel reports its user,
// independently of the socket's path. Other connections are not checked.
func CheckListener(nc net.Conn, file fs.FileInfo) error {
	c, ok := nc.(*net.UnixConn)
	st, known := file.Sys().(*syscall.Stat_t)
	if !ok || !known {
		return nil
	}
	control, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	if e := control.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); e != nil {
		return e
	}
	if err != nil {
		return fmt.Errorf("who listens on %s: %w", nc.RemoteAddr(), err)
	}
	if cred.Uid != 0 && cred.Uid != st.Uid {
		return fmt.Errorf("user %d listens on %s: expected user %d, whose file %s is", cred.Uid, nc.RemoteAddr(), st.Uid, file.Name())
	}
	return nil
}
