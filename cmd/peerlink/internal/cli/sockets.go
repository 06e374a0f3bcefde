package cli

import (
	"fmt"
	"net"
	"strings"

	"github.com/spf13/pflag"

	"peerlink/internal/activation"
)

// The names of the sockets that systemd may pass (FileDescriptorName= in a socket unit).
const (
	socketLinks   = "links"
	socketLocal   = "local"
	socketAdmin   = "admin"
	socketPublish = "publish"
)

// socketOf are the names of the sockets that take the place of an address, by the flag with the address.
var socketOf = map[string]string{"listen": socketLinks, "local-listen": socketLocal, "admin": socketAdmin, "publish": socketPublish}

// takeSockets takes over the sockets that systemd has opened for the service. Their addresses replace the default
// ones. An address that is given must be that of the socket.
func (f *serveFlags) takeSockets(flags *pflag.FlagSet) (err error) {
	if f.sockets, err = activation.Take(socketLinks, socketLocal, socketAdmin, socketPublish); err != nil {
		return usagef("%v", err)
	}
	if f.sockets[socketLocal] != nil && f.broker != embeddedBroker {
		return usagef("systemd has opened a socket with the name %q, and with RabbitMQ there is no local door: remove its unit", socketLocal)
	}
	for flag, name := range socketOf {
		list := f.sockets[name]
		if len(list) == 0 {
			continue
		}
		if len(list) > 1 && name != socketLinks {
			return usagef("systemd has opened %d sockets with the name %q: expected one", len(list), name)
		}
		if err := useSockets(flags, flag, list); err != nil {
			return err
		}
	}
	return nil
}

// useSockets sets the flag with an address to that of the first of the sockets, unless the address is given: then one
// of the sockets must have it.
func useSockets(flags *pflag.FlagSet, flag string, sockets []net.Listener) error {
	if !isGiven(flags, flag) {
		return flags.Lookup(flag).Value.Set(sockets[0].Addr().String())
	}
	given := flags.Lookup(flag).Value.String()
	for _, l := range sockets {
		if sameAddress(given, l.Addr()) {
			return nil
		}
	}
	return usagef("--%s is %s (from: %s), and systemd has opened %s: leave out the former, or set ListenStream= in the socket unit to the same",
		flag, given, originOf(flags.Lookup(flag)), addressesOf(sockets))
}

// sameAddress reports whether an address that is given means the address of a socket. All unspecified addresses are
// the same: which protocols a socket is for is the choice of whoever has opened it.
func sameAddress(given string, socket net.Addr) bool {
	want, err := net.ResolveTCPAddr("tcp", given)
	got, ok := socket.(*net.TCPAddr)
	if err != nil || !ok || want.Port != got.Port {
		return false
	}
	return want.IP.Equal(got.IP) || (want.IP == nil || want.IP.IsUnspecified()) && got.IP.IsUnspecified()
}

// addressesOf returns the addresses of sockets.
func addressesOf(sockets []net.Listener) string {
	list := make([]string, len(sockets))
	for i, l := range sockets {
		list[i] = l.Addr().String()
	}
	return strings.Join(list, ", ")
}

// inherited returns the only socket of this name that systemd has opened, or nil.
func (f *serveFlags) inherited(name string) net.Listener {
	if list := f.sockets[name]; len(list) > 0 {
		return list[0]
	}
	return nil
}

// linkListeners returns the sockets where peers connect: those of systemd, or one at addr.
func linkListeners(sockets []net.Listener, addr peerAddress) ([]net.Listener, error) {
	if len(sockets) > 0 {
		return sockets, nil
	}
	l, err := net.Listen("tcp", string(addr))
	if err != nil {
		return nil, fmt.Errorf("listen for peers: %w; is another service running there, or has a socket unit of systemd opened it?", err)
	}
	return []net.Listener{l}, nil
}

// closeListeners closes the sockets where peers connect.
func closeListeners(list []net.Listener) {
	for _, l := range list {
		l.Close()
	}
}
