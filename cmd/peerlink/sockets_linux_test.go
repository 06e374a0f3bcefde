package main

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// socket opens a listening socket, as systemd does, and returns it with its address.
func socket(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f, l.Addr().String()
}

// withSockets returns the program as systemd starts it, with sockets.
func withSockets(t *testing.T, names string, sockets []*os.File, args ...string) *exec.Cmd {
	t.Helper()
	c := exec.Command("sh", append([]string{"-c", `export LISTEN_PID=$$; exec "$@"`, "sh", program(t)}, args...)...)
	c.Env = append(os.Environ(), fmt.Sprintf("LISTEN_FDS=%d", len(sockets)), "LISTEN_FDNAMES="+names)
	c.ExtraFiles = sockets
	return c
}

// "serve --check" shows the sockets that systemd has opened. A given address that is not theirs, and sockets that can
// not be used, are wrong settings, with the reason.
func TestCheckSockets(t *testing.T) {
	t.Parallel()
	s := newServer(t, nodetype.AccountingAuthority)
	a, addrA := socket(t)
	b, addrB := socket(t)
	for _, test := range []struct {
		name, sockets, environment, args string
		code                             int
		want                             string
	}{
		{"default", "links:admin", "", "", 0, "systemd, socket links"},
		{"without a name", "unknown:admin", "", "", 0, addrA},
		{"same address", "links:admin", "PEERLINK_ADMIN=" + addrB, "--listen " + addrA, 0, "Everything is in order"},
		{"any of several", "links:links", "", "--listen " + addrB, 0, addrA + ", " + addrB},
		{"other address", "links:admin", "", "--listen 127.0.0.1:1", 64, "--listen is 127.0.0.1:1 (from: command line), and systemd has opened " + addrA + ":"},
		{"other host", "links:admin", "", "--listen " + addrA[strings.LastIndex(addrA, ":"):], 64, "systemd has opened " + addrA},
		{"other address by environment", "links:admin", "PEERLINK_LISTEN=:1", "", 64, "--listen is :1 (from: PEERLINK_LISTEN)"},
		{"no local door", "links:local", "", "--local-listen none", 64, "--local-listen is none"},
		{"two for one address", "admin:admin", "", "", 64, "2 sockets with the name \"admin\": expected one"},
		{"other name", "links:peerlink.socket", "", "", 64, "expected links, local, admin, publish"},
		{"RabbitMQ", "links:local", "", "--broker amqp://localhost", 64, "no local door"},
	} {
		t.Run(test.name, func(t *testing.T) {
			c := withSockets(t, test.sockets, []*os.File{a, b},
				append([]string{"-C", s.Path(), "serve", "--check", "--server-cert", s.cert, "--server-key", s.key, "--state", s.state}, strings.Fields(test.args)...)...)
			c.Env = append(c.Env, test.environment)
			out, err := c.CombinedOutput()
			if c.ProcessState.ExitCode() != test.code || !strings.Contains(string(out), test.want) {
				t.Errorf("got %v, want exit code %d and %q\n%s", err, test.code, test.want, out)
			}
		})
	}
}

// Connections that are made before the service runs, to the sockets of systemd for peers, applications, the dashboard
// and the info-bundle, are served when it runs.
func TestServeWithSockets(t *testing.T) {
	t.Parallel()
	s := newServer(t, nodetype.AccountingAuthority)
	if err := s.CreateBundle(t.Context(), filepath.Join(t.TempDir(), "bundle.zip"), s.Key); err != nil {
		t.Fatal(err)
	}
	names := []string{"links", "links", "local", "admin", "publish"}
	var sockets []*os.File
	var waiting []net.Conn
	for range names {
		f, addr := socket(t)
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		sockets, waiting = append(sockets, f), append(waiting, nc)
	}
	c := withSockets(t, strings.Join(names, ":"), sockets, "-C", s.Path(), "serve", "--server-cert", s.cert, "--server-key", s.key, "--state", s.state)
	log, err := os.Create(filepath.Join(s.state, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.Stderr = log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := c.Process.Signal(os.Interrupt); err != nil {
			t.Error(err)
		}
		if err := c.Wait(); err != nil {
			t.Errorf("the service ended with %v\n%s", err, s.log())
		}
	}()
	deadline := time.Now().Add(time.Minute)
	ctx, cancel := context.WithDeadline(t.Context(), deadline)
	defer cancel()
	for i, name := range names {
		nc := waiting[i]
		if err := nc.SetDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		switch name {
		case "links":
			err = handshake(ctx, nc)
		case "local":
			err = answers(nc, "CONNECT\naccept-version:1.2\nhost:localhost\n\n\x00", "ERROR\n") // without a passcode
		case "admin":
			err = answers(nc, "GET /metrics HTTP/1.0\r\nHost: localhost\r\n\r\n", "HTTP/1.0 200 ")
		case "publish":
			err = answers(nc, "GET /info-bundle.zip HTTP/1.0\r\n\r\n", "HTTP/1.0 200 ")
		}
		if err != nil {
			t.Errorf("%s: %v\n%s", name, err, s.log())
		}
	}
}

// answers sends a request, and returns an error unless the response begins with want.
func answers(nc net.Conn, request, want string) error {
	if _, err := io.WriteString(nc, request); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := io.ReadFull(nc, got); err != nil || string(got) != want {
		return fmt.Errorf("got the response %q (%v), want %q", got, err, want)
	}
	return nil
}

// swpt-server takes the sockets of systemd too, and a given port must be theirs.
func TestSwptServerWithSocket(t *testing.T) {
	t.Parallel()
	s := newServer(t, nodetype.AccountingAuthority)
	f, addr := socket(t)
	args := []string{"swpt-server", "--nodedata-url", "file://" + s.Path(), "--server-cert", s.cert, "--server-key", s.key, "--broker-url", "amqp://guest:guest@127.0.0.1:1"}
	c := withSockets(t, "links", []*os.File{f}, append(args, "--server-port", "1")...)
	out, err := c.CombinedOutput()
	if want := "--server-port is 1, and systemd has opened " + addr; c.ProcessState.ExitCode() != 64 || !strings.Contains(string(out), want) {
		t.Errorf("got %v, want exit code 64 and %q\n%s", err, want, out)
	}
	c = withSockets(t, "links", []*os.File{f}, args...)
	log, err := os.Create(filepath.Join(s.state, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.Stdout, c.Stderr = log, log
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Process.Kill(); _ = c.Wait() }()
	until(t, "the service at the socket", func() error {
		if !strings.Contains(s.log(), "listen="+addr) {
			return fmt.Errorf("expected listen=%s in the log:\n%s", addr, s.log())
		}
		return nil
	})
}
