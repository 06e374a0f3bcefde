package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"time"

	"peerlink/link"
	"peerlink/node"
)

const (
	// lookupTime bounds the resolution of one name.
	lookupTime = 5 * time.Second
	// maxOwnServers bounds the servers of this node that are looked at.
	maxOwnServers = 10
)

// checkListen checks that the service listens for peers, or that it could.
func (e *examination) checkListen(ctx context.Context) {
	const name = "listen"
	if e.skip(name, e.cfg.Listen, "directory") {
		return
	}
	host, port, err := net.SplitHostPort(e.cfg.Listen)
	if err != nil {
		e.fail(name, e.cfg.Listen, err.Error(), "give an address such as :1234 with --listen")
		return
	}
	if ip, err := netip.ParseAddr(host); host == "" || err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	here := net.JoinHostPort(host, port)
	probeErr := link.ProbeSelf(ctx, e.dir, here)
	if e.serving = probeErr == nil; e.serving {
		e.pass(name, e.cfg.Listen, "a service of this node answers there")
		return
	}
	if e.cfg.Service != nil {
		e.fail(name, e.cfg.Listen, "the running service listens there, and does not answer: "+probeErr.Error(), "look into the log of the service, and start it again if it hangs")
		return
	}
	e.checkFree(name, probeErr)
}

// checkFree checks that a service could listen at the address. probeErr is why none of this node
// answers there.
func (e *examination) checkFree(name string, probeErr error) {
	l, err := net.Listen("tcp", e.cfg.Listen)
	switch {
	case err == nil:
		l.Close()
		e.pass(name, e.cfg.Listen, "free: no service runs there")
	case errors.Is(err, syscall.EADDRINUSE):
		e.fail(name, e.cfg.Listen, "it is taken: "+probeErr.Error(), "end the program that uses the port (ss -ltnp shows it), or give the service another one with --listen")
	case errors.Is(err, syscall.EACCES):
		e.fail(name, e.cfg.Listen, err.Error(), "choose a port from 1024 on with --listen, or allow the service lower ones (CAP_NET_BIND_SERVICE)")
	default:
		e.fail(name, e.cfg.Listen, err.Error(), "name an address of this machine with --listen, or only a port")
	}
}

// checkAnnounced compares the addresses that peers are told with the one where the service listens.
func (e *examination) checkAnnounced(ctx context.Context) {
	const name, file = "announced", "nodeinfo/stomp.toml"
	const remedy = "write the addresses of this node's servers into nodeinfo/stomp.toml, and make a new info-bundle for the peers: peerlink bundle create"
	if e.skip(name, file, "directory") {
		return
	}
	own, err := e.dir.OwnStomp()
	if err != nil {
		e.fail(name, file, err.Error(), remedy)
		return
	}
	if err := e.dir.CheckStompTOML(); errors.Is(err, node.ErrUnpublished) {
		e.warn(name, file, "peers are told other addresses: the newest info-bundle has another stomp.toml", "make a new info-bundle for the peers: peerlink bundle create")
	}
	for _, server := range own.Servers[:min(len(own.Servers), maxOwnServers)] {
		e.checkOwnServer(ctx, name, server, remedy)
	}
}

// checkOwnServer checks one address that peers are told.
func (e *examination) checkOwnServer(ctx context.Context, name, server, remedy string) {
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		e.fail(name, server, err.Error(), remedy)
		return
	}
	ips, err := lookUp(ctx, host)
	if err != nil {
		e.fail(name, server, err.Error(), "register the name with your DNS provider, or correct it: "+remedy)
		return
	}
	listenHost, listenPort, _ := net.SplitHostPort(e.cfg.Listen)
	probeErr := link.ProbeSelf(ctx, e.dir, server)
	switch {
	case probeErr == nil:
		e.pass(name, server, "a service of this node answers there")
	case errors.Is(probeErr, link.ErrOther):
		e.fail(name, server, probeErr.Error(), "see which program answers there; if the address is wrong, "+remedy)
	case port != listenPort:
		e.fail(name, server, fmt.Sprintf("peers are told port %s, and the service listens on port %s: %v", port, listenPort, probeErr),
			"start the service with --listen :"+port+", or forward the port; or "+remedy)
	case isLoopback(listenHost) && !allLoopback(ips):
		e.fail(name, server, fmt.Sprintf("the service listens on %s, which no other machine can reach", listenHost), "start the service with --listen :"+listenPort)
	case e.serving:
		e.warn(name, server, "from this machine: "+probeErr.Error(), "try it from another machine; if it fails there, see that the firewall and the router forward the port to this machine")
	default:
		e.pass(name, server, "resolves to "+joinIPs(ips)+"; no service runs to answer")
	}
}

// lookUp returns the addresses of a host name, or the address that it is.
func lookUp(ctx context.Context, host string) ([]netip.Addr, error) {
	if ip, err := netip.ParseAddr(host); err == nil {
		return []netip.Addr{ip}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, lookupTime)
	defer cancel()
	ips, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	var dns *net.DNSError
	switch {
	case errors.As(err, &dns) && dns.IsNotFound:
		return nil, fmt.Errorf("the name %s does not exist", host)
	case err != nil:
		return nil, fmt.Errorf("the name %s can not be resolved: %w", host, err)
	}
	for i := range ips {
		ips[i] = ips[i].Unmap()
	}
	return ips, nil
}

func isLoopback(host string) bool {
	ip, err := netip.ParseAddr(host)
	return host == "localhost" || err == nil && ip.IsLoopback()
}

func allLoopback(ips []netip.Addr) bool {
	for _, ip := range ips {
		if !ip.IsLoopback() {
			return false
		}
	}
	return true
}

func joinIPs(ips []netip.Addr) string {
	var texts []string
	for _, ip := range ips {
		texts = append(texts, ip.String())
	}
	return strings.Join(texts, ", ")
}
