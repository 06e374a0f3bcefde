//go:build !linux

package socket

import "net"

// ClientUser returns -1: this system does not report the user at the other end of a TCP
// connection.
func ClientUser(net.Conn) int { return -1 }
