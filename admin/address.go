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
	// ErrAddress is returned for an address that [ParseAddress] does not accept.
	ErrAddress = errors.New("not an address for administration")
	// ErrExposed is returned for an address that other machines could reach, unless
	// [Config].Exposed is set.
	ErrExposed = errors.New("other machines could reach the address for administration")
)

const unixPrefix = "unix:"

// exampleAddress is what errors say that they have expected.
const exampleAddress = "127.0.0.1:1235 or unix:/run/peerlink/admin.sock"

// Address is the address of a [Server], for the server and for its [Client].
type Address struct {
	network, address string
}

// ParseAddress parses an address, such as "unix:/path/of/socket" or "127.0.0.1:1235". It
// returns [ErrAddress] if the address is invalid.
func ParseAddress(s string) (Address, error) {
	if path, ok := strings.CutPrefix(s, unixPrefix); ok {
		if !filepath.IsAbs(path) {
			return Address{}, fmt.Errorf("%w: %q; expected an absolute path after %q", ErrAddress, s, unixPrefix)
		}
		return Address{"unix", path}, nil
	}
	if _, _, err := net.SplitHostPort(s); err != nil {
		return Address{}, fmt.Errorf("%w: %q; expected an address like %s", ErrAddress, s, exampleAddress)
	}
	return Address{"tcp", s}, nil
}

// UnixAddress returns the address of a Unix socket in the form of [ParseAddress].
func UnixAddress(path string) string { return unixPrefix + path }

// String returns the address in the form that [ParseAddress] accepts.
func (a Address) String() string {
	if a.network == "unix" {
		return unixPrefix + a.address
	}
	return a.address
}

// CheckListen returns [ErrAddress] or [ErrExposed] if an address can not be used for a [Server].
// exposed allows one that other machines can reach.
func CheckListen(address string, exposed bool) error {
	a, err := ParseAddress(address)
	if err != nil {
		return err
	}
	_, err = a.checkExposed(exposed)
	return err
}

// checkExposed reports whether other machines can reach the address, and returns [ErrExposed] if they
// can and that is not allowed.
func (a Address) checkExposed(allowed bool) (exposed bool, err error) {
	if a.network == "unix" {
		return false, nil
	}
	tcp, err := net.ResolveTCPAddr("tcp", a.address)
	if err != nil {
		return false, fmt.Errorf("listen for administration on %q: %w; expected an address like %s", a.address, err, exampleAddress)
	}
	if exposed = !tcp.IP.IsLoopback(); exposed && !allowed {
		return true, fmt.Errorf("%w: %s; use a loopback address, or allow this one with --admin-exposed", ErrExposed, a.address)
	}
	return exposed, nil
}

// listen listens on the address, unless there is a listener for it already. exposed reports whether
// other machines can reach it.
func (a Address) listen(open net.Listener, allowExposed bool) (l net.Listener, exposed bool, err error) {
	exposed, err = a.checkExposed(allowExposed)
	switch {
	case err != nil:
		return nil, exposed, err
	case open != nil:
		return open, exposed, nil
	case a.network == "unix":
		l, err = socket.Listen(a.address)
	default:
		l, err = net.Listen("tcp", a.address)
	}
	if err != nil {
		return nil, exposed, fmt.Errorf("listen for administration: %w", err)
	}
	return l, exposed, nil
}
