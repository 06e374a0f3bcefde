package local

import (
	"errors"
	"fmt"
	"net"

	"peerlink/internal/socket"
)

var (
	// errNotLoopback means that the configured address can be reached by other
	// machines.
	errNotLoopback = errors.New("local: not a loopback address")
	// errInUse means that a door is open on the same state folder already.
	errInUse = errors.New("local: door is open already")
)

// CheckListen returns an error if address can not be [Config].Listen: it is neither "none" nor a
// loopback address.
func CheckListen(address string) error {
	if !wantsTCP(address) {
		return nil
	}
	_, err := resolve(address)
	return err
}

// resolve returns a loopback address.
func resolve(address string) (*net.TCPAddr, error) {
	tcp, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for local applications on %q: %w; expected an address like %s", address, err, defaultListen)
	}
	if !tcp.IP.IsLoopback() {
		return nil, fmt.Errorf("%w: refused to listen for local applications on %q, which other machines could reach without encryption; expected an address like %s",
			errNotLoopback, address, defaultListen)
	}
	return tcp, nil
}

// listenTCP listens on a loopback address, unless there is a listener for it already.
func listenTCP(address string, open net.Listener) (net.Listener, error) {
	tcp, err := resolve(address)
	if err != nil {
		return nil, err
	}
	if open != nil {
		return open, nil
	}
	l, err := net.ListenTCP("tcp", tcp)
	if err != nil {
		return nil, fmt.Errorf("listen for local applications: %w; if another node on this machine has this port, choose another", err)
	}
	return l, nil
}

// listenUnix listens on a Unix socket to which only this user can connect. Clients must
// send the passcode there, too.
func listenUnix(path string) (net.Listener, error) {
	l, err := socket.Listen(path)
	if errors.Is(err, socket.ErrInUse) {
		err = fmt.Errorf("%w: %w", errInUse, err)
	}
	if err != nil {
		return nil, fmt.Errorf("listen for local applications: %w", err)
	}
	return l, nil
}
