package main

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"os/exec"
	"testing"
	"time"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetype"
)

// "serve" and "swpt-server", configured by --proxy-from or by PEERLINK_PROXY_FROM, log the
// address in the PROXY header of a connection, and refuse a connection without a header.
func TestProxyFrom(t *testing.T) {
	t.Parallel()
	const loadBalancers = "192.0.2.0/24,127.0.0.1"
	serve := func(t *testing.T) (*server, *exec.Cmd) {
		n := newServer(t, nodetype.AccountingAuthority)
		return n, exec.Command(program(t), "-C", n.Path(), "serve", "--listen", n.addr, "--server-cert", n.cert, "--server-key", n.key,
			"--state", n.state, "--local-listen", "none", "--admin", "none")
	}
	swptServer := func(t *testing.T) (*server, *exec.Cmd) {
		n := newSwptNode(t, nodetype.AccountingAuthority, rabbittest.Get(t).URL())
		return n.server, n.command("swpt-server")
	}
	for _, c := range []struct {
		name    string
		command func(*testing.T) (*server, *exec.Cmd)
		flag    bool
	}{
		{"serve, flag", serve, true},
		{"serve, environment", serve, false},
		{"swpt-server, flag", swptServer, true},
		{"swpt-server, environment", swptServer, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			n, cmd := c.command(t)
			if cmd.Env == nil {
				cmd.Env = os.Environ()
			}
			if c.flag {
				cmd.Args = append(cmd.Args, "--proxy-from", loadBalancers)
			} else {
				cmd.Env = append(cmd.Env, "PEERLINK_PROXY_FROM="+loadBalancers)
			}
			p := start(t, cmd)
			shakeHands(t, n.addr, "PROXY TCP4 198.51.100.7 192.0.2.1 4567 1234\r\n")
			p.says("198.51.100.7:4567") // in JSON, too, which is what swpt-server logs here
			shakeHands(t, n.addr, "")
			p.says("must begin with a PROXY header")
		})
	}
}

// shakeHands waits until a service listens, sends a header, begins a TLS handshake without a
// certificate, and waits until the service has closed the connection.
func shakeHands(t *testing.T, addr, header string) {
	t.Helper()
	var tcp net.Conn
	until(t, "connect", func() (err error) {
		tcp, err = net.Dial("tcp", addr)
		return err
	})
	defer tcp.Close()
	tcp.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(tcp, header); err != nil {
		t.Fatal(err)
	}
	conn := tls.Client(tcp, &tls.Config{InsecureSkipVerify: true})
	err := conn.Handshake()
	if err == nil {
		_, err = io.ReadAll(conn)
	}
	if err == nil {
		t.Error("the service accepts a client without a certificate")
	}
}
