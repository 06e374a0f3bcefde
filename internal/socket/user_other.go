//go:build !linux

package socket

import "net"

// ClientUser returns -1: the system does not say whose the other end of a TCP
// connection is.
func ClientUser(net.Conn) int { return -1 }
