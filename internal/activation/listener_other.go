//go:build !linux

package activation

import (
	"errors"
	"net"
)

var errNotLinux = errors.New("sockets of a service manager can be taken over on Linux only")

// check returns an error: only systemd passes sockets by this protocol, and it runs on Linux.
func check(int) error { return errNotLinux }

// listener is never called.
func listener(int) (net.Listener, error) { return nil, errNotLinux }
