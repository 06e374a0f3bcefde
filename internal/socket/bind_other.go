//go:build !unix

package socket

import "net"

// bind makes the socket file; the folder's access list decides who may connect.
func bind(path string) (net.Listener, error) { return net.Listen("unix", path) }
