//go:build !linux

package activation

import (
	"errors"
	"net"
)

// listener returns an error: only systemd passes sockets by this protocol, and it runs on Linux.
func listener(int) (net.Listener, error) {
	return nil, errors.New("sockets of a service manager can be taken over on Linux only")
}
