package socket

import (
	"encoding/binary"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// Sizes of messages, and offsets in them, see sock_diag(7), netlink(7) and linux/inet_diag.h.
const (
	headerSize  = unix.SizeofNlMsghdr
	requestSize = headerSize + 56 // with struct inet_diag_req_v2
	answerSize  = headerSize + 72 // with struct inet_diag_msg
	typeOffset  = 4               // in struct nlmsghdr
	stateOffset = headerSize + 1  // of idiag_state
	userOffset  = headerSize + 64 // of idiag_uid
)

// tcpEstablished is the state of a connected socket, TCP_ESTABLISHED.
const tcpEstablished = 1

// ClientUser returns the user ID of the process at the other end of a TCP connection that
// was accepted on loopback, and -1 if it is unknown.
func ClientUser(nc net.Conn) int {
	client, ok1 := nc.RemoteAddr().(*net.TCPAddr)
	server, ok2 := nc.LocalAddr().(*net.TCPAddr)
	if !ok1 || !ok2 {
		return -1
	}
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return -1
	}
	defer unix.Close(fd)
	request := diagRequest(client.AddrPort(), server.AddrPort())
	if unix.Sendto(fd, request, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}) != nil {
		return -1
	}
	answer := make([]byte, 4096)
	n, _, err := unix.Recvfrom(fd, answer, unix.MSG_DONTWAIT) // the kernel has answered when Sendto returns
	if err != nil || n < answerSize {
		return -1
	}
	// A socket that is closing may have no user any more, and is reported as root's.
	if binary.NativeEndian.Uint16(answer[typeOffset:]) != unix.SOCK_DIAG_BY_FAMILY || answer[stateOffset] != tcpEstablished {
		return -1
	}
	return int(binary.NativeEndian.Uint32(answer[userOffset:]))
}

// diagRequest returns a request for information about the client's socket of the connection
// between client and server.
func diagRequest(client, server netip.AddrPort) []byte {
	b := make([]byte, 0, requestSize)
	b = binary.NativeEndian.AppendUint32(b, requestSize)
	b = binary.NativeEndian.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = binary.NativeEndian.AppendUint16(b, unix.NLM_F_REQUEST)
	b = append(b, make([]byte, 8)...) // sequence number, and port ID
	family := byte(unix.AF_INET6)
	if client.Addr().Unmap().Is4() {
		family = unix.AF_INET
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, 1<<tcpEstablished) // only sockets in this state
	b = binary.BigEndian.AppendUint16(b, client.Port())
	b = binary.BigEndian.AppendUint16(b, server.Port())
	for _, a := range []netip.Addr{client.Addr(), server.Addr()} {
		address := [16]byte{}
		copy(address[:], a.Unmap().AsSlice())
		b = append(b, address[:]...)
	}
	b = append(b, make([]byte, 4)...) // any interface
	for range 8 {
		b = append(b, 0xff) // any cookie
	}
	return b
}
