//go:build !unix

package socket

import "net"

// bind creates the socket file; the folder's access control list restricts who may
// connect.
func bind(path string) (net.Listener, error) { return net.Listen("unix", path) }
