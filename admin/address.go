package admin

import (
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"

	"peerlink/internal/socket"
)

var (
	// ErrAddress is reported for a text that is no address.
	ErrAddress = errors.New("not an address for administration")
	// ErrExposed means that other machines could reach the address, and nobody
	// has asked for that.
	ErrExposed = errors.New("other machines could reach the address for administration")
)

const unixPrefix = "unix:"

// Address is where a [Server] listens, and where a [Client] finds it.
type Address struct {
	network, address string
}

// ParseAddress reads an address: "unix:/path/of/socket", or "127.0.0.1:1235". It
// reports [ErrAddress].
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, unixPrefix); ok {
		if !filepath.IsAbs(path) {
			return Address{}, fmt.Errorf("%w: %q; expected an absolute path after %q", ErrAddress, s, unixPrefix)
		}
		return Address{"unix", path}, nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return Address{}, fmt.Errorf("%w: %q; expected something like 127.0.0.1:1235 or unix:/run/peerlink/admin.sock", ErrAddress, s)
	}
	return Address{"tcp", s}, nil
}

// UnixAddress is the address of a socket.
func UnixAddress(path string) string { return unixPrefix + path }

// String is the text that [ParseAddress] reads.
func (a Address) String() string {
	if a.network == "unix" {
		return unixPrefix + a.address
	}
	return a.address
}

// listen opens the address. exposed reports whether other machines can reach it.
func (a Address) listen(allowExposed bool) (l net.Listener, exposed bool, err error) {
	if a.network == "unix" {
		l, err = socket.Listen(a.address)
	} else {
		var tcp *net.TCPAddr
		if tcp, err = net.ResolveTCPAddr("tcp", a.address); err != nil {
			return nil, false, fmt.Errorf("listen for administration: %w", err)
		}
		if exposed = !tcp.IP.IsLoopback(); exposed && !allowExposed {
			return nil, true, fmt.Errorf("%w: %s; take one of loopback, or allow it with --admin-exposed", ErrExposed, a.address)
		}
		l, err = net.ListenTCP("tcp", tcp)
	}
	if err != nil {
		return nil, exposed, fmt.Errorf("listen for administration: %w", err)
	}
	return l, exposed, nil
}
