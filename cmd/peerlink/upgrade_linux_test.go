package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// nextBuild builds the program of another version, and returns its path.
func nextBuild(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "peerlink-next")
	c := exec.Command("go", "build", "-tags", "peerlink_test_cost", "-ldflags", "-s -w -X peerlink/cmd/peerlink/internal/cli.version=next", "-o", path, ".")
	c.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := c.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

// superviseScript runs the programs whose paths it reads, one after the other, with the sockets that it was passed, as
// systemd does. "$@" are the arguments of the programs.
const superviseScript = `while read -r program; do
	sh -c 'export LISTEN_PID=$$; echo $$; exec "$@"' sh "$program" "$@" </dev/null
	echo ended $?
done`

// supervisor keeps the socket of a service open, as systemd does, while the service's program is replaced.
type supervisor struct {
	t   *testing.T
	in  io.Writer      // for paths of programs
	out *bufio.Scanner // process IDs, and how processes end
	pid int            // of the running service
}

// supervise starts a supervisor for a node's service, by systemd-socket-activate.
func supervise(t *testing.T, s *server) *supervisor {
	t.Helper()
	activate, err := exec.LookPath("systemd-socket-activate")
	if err != nil {
		t.Skip("systemd-socket-activate is not installed: a service with sockets of systemd is not tested")
	}
	c := exec.Command(activate, "--listen="+s.addr, "--fdname=links", "--setenv=XDG_STATE_HOME", "sh", "-c", superviseScript, "sh",
		"-C", s.Path(), "serve", "--server-cert", s.cert, "--server-key", s.key, "--state", s.state, "--local-listen", "none")
	log, err := os.Create(filepath.Join(s.state, "log"))
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	c.Stderr = log
	in, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	v := &supervisor{t: t, in: in, out: bufio.NewScanner(out)}
	t.Cleanup(func() {
		if v.pid != 0 {
			_ = syscall.Kill(v.pid, syscall.SIGKILL)
		} else {
			_ = c.Process.Kill()
		}
		in.Close()
		_ = c.Wait()
	})
	// It waits for the first connection, which the service then serves.
	until(t, "the socket of systemd-socket-activate", func() error {
		nc, err := net.Dial("tcp", s.addr)
		if err == nil {
			nc.Close()
		}
		return err
	})
	return v
}

// start starts a program.
func (v *supervisor) start(program string) {
	v.t.Helper()
	fmt.Fprintln(v.in, program)
	if !v.out.Scan() {
		v.t.Fatalf("no process was started: %v", v.out.Err())
	}
	if _, err := fmt.Sscan(v.out.Text(), &v.pid); err != nil {
		v.t.Fatalf("%q: %v", v.out.Text(), err)
	}
}

// stop ends the program in good order, and waits for its end.
func (v *supervisor) stop() {
	v.t.Helper()
	if err := syscall.Kill(v.pid, syscall.SIGTERM); err != nil {
		v.t.Fatal(err)
	}
	if v.out.Scan(); v.out.Text() != "ended 0" {
		v.t.Fatalf("the service has %s, want ended 0", v.out.Text())
	}
	v.pid = 0
}

// handshake completes a TLS handshake on a connection that is open already.
func handshake(ctx context.Context, nc net.Conn) error {
	return tls.Client(nc, &tls.Config{InsecureSkipVerify: true}).HandshakeContext(ctx) // the service's certificate is not the point
}

// While the program of a running service is replaced by that of another version, and back, with a socket that systemd
// has opened, no connection is refused, those made meanwhile are served, and no message in either direction is lost.
func TestUpgradeUnderLoad(t *testing.T) {
	t.Parallel()
	authority, agent := newServer(t, nodetype.AccountingAuthority), newServer(t, nodetype.CreditorsAgent)
	nodetest.Peer(t, authority.Node, agent.Node)
	programs := []string{program(t), nextBuild(t)}
	supervisor := supervise(t, authority)
	supervisor.start(programs[0])
	agent.start()
	defer func() { agent.kill() }()
	traffic := startTraffic(t, authority, agent)
	defer traffic.cancel()
	apps := traffic.apps
	exchange := func() {
		t.Helper()
		for _, a := range apps {
			_, before := a.counts()
			traffic.await("messages in both directions", func() bool { _, got := a.counts(); return got >= before+200 })
		}
	}
	connects := 0
	traffic.senders.Go(func() { // connects all the time
		for ; traffic.sending.Err() == nil; connects++ {
			nc, err := net.Dial("tcp", authority.addr)
			if err != nil {
				t.Errorf("connection %d was refused: %v", connects, err)
				return
			}
			nc.Close()
			time.Sleep(5 * time.Millisecond)
		}
	})
	exchange()
	for _, n := range []int{1, 0, 1, 0} {
		supervisor.stop()
		var waiting []net.Conn
		for range 10 {
			nc, err := net.Dial("tcp", authority.addr)
			if err != nil {
				t.Fatalf("while no service runs: %v", err)
			}
			defer nc.Close()
			waiting = append(waiting, nc)
		}
		supervisor.start(programs[n])
		for _, nc := range waiting {
			if err := handshake(traffic.ctx, nc); err != nil {
				t.Errorf("a connection made while no service ran was not served: %v\n%s", err, authority.log())
			}
		}
		exchange()
	}
	traffic.finish()
	for i, a := range apps {
		confirmed, _ := apps[1-i].counts()
		t.Logf("%d messages to %s, %d connections, none refused", confirmed, a.node.Identity().Type.Short(), connects)
		if len(a.damaged) > 0 {
			t.Errorf("%d messages have changed on the way, for example %s", len(a.damaged), a.damaged[0])
		}
	}
	supervisor.stop()
	if _, err := net.Dial("tcp", authority.addr); err != nil {
		t.Errorf("the service has closed the socket of systemd: %v", err)
	}
	if log, err := os.ReadFile(filepath.Join(authority.state, "log")); err != nil || !strings.Contains(string(log), "listen="+authority.addr) {
		t.Errorf("the log does not name the socket's address (%v):\n%s", err, authority.log())
	}
}
