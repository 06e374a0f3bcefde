package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// maxSmallMemory is the memory limit of configure-queue, and the requested memory of each
// client, in the reference's Kubernetes manifests, in KiB.
const maxSmallMemory = 32 << 10

// configure-queue, a client that has sent all messages and waits for more, and a drainer that
// has answered all and waits for more, have never used more memory than the reference's
// manifests permit configure-queue and request for a client. (The test measures the peerlink
// binary, since a program with the race detector uses several times as much memory.)
func TestSwptMemory(t *testing.T) {
	rabbit := rabbittest.Get(t)
	authority := newSwptNode(t, nodetype.AccountingAuthority, rabbit.URL())
	agent := newSwptNode(t, nodetype.CreditorsAgent, rabbit.URL())
	for _, n := range []*swptNode{authority, agent} {
		n.links = realLinks(t)
	}
	nodetest.Peer(t, authority.Node, agent.Node)
	far := newApplication(agent.server, authority.server)
	at := newApplication(authority.server, agent.server)
	at.other, far.other = far, at
	conn, err := amqp.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forgetAgents(t, conn)
	for _, n := range []*swptNode{authority, agent} {
		declareInbox(t, conn, n.Identity().Type.Inbox())
	}

	peer := authority.Identity().ID
	door := newExit(t, rabbit.URL())
	agent.url = door.url
	configure := agent.start("configure-queue", peer, "to."+peer)
	select {
	case <-door.reached:
	case <-configure.exited:
		t.Fatalf("configure-queue has ended without closing its connection:\n%s", configure.output)
	case <-time.After(30 * time.Second):
		t.Fatalf("configure-queue does not close its connection:\n%s", configure.output)
	}
	checkMemory(t, "configure-queue", configure)
	close(door.open)
	agent.url = rabbit.URL()
	if code := configure.code(); code != 0 {
		t.Fatalf("configure-queue ends with %d:\n%s", code, configure.output)
	}
	if err := authority.MarkActive(agent.Identity().ID); err != nil {
		t.Fatal(err)
	}
	if err := agent.MarkActive(peer); err != nil {
		t.Fatal(err)
	}
	authority.start("swpt-server").says(`"msg":"serving"`)
	client := agent.start("swpt-client", peer, "to."+peer)
	publishFrom(t, conn, far, 0, 500)
	takeAll(t, conn, at, 500)
	checkMemory(t, "the client", client)

	if _, err := agent.DeactivatePeer(t.Context(), peer); err != nil {
		t.Fatal(err)
	}
	client.code()
	publishFrom(t, conn, far, 500, 500)
	drainer := agent.start("swpt-drainer", peer, "to."+peer)
	takeAll(t, conn, newApplication(agent.server, authority.server), 500)
	checkMemory(t, "the drainer", drainer)
}

// exit is a proxy to RabbitMQ that holds back the frame by which a client closes its
// connection, and so keeps a program that has done its work from ending.
type exit struct {
	url     string
	reached chan struct{} // closed when a client closes its connection
	open    chan struct{} // to be closed, lets the frame pass
}

func newExit(t *testing.T, rabbit string) *exit {
	t.Helper()
	u, err := url.Parse(rabbit)
	if err != nil {
		t.Fatal(err)
	}
	server := u.Host
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	u.Host = l.Addr().String()
	e := &exit{u.String(), make(chan struct{}), make(chan struct{})}
	t.Cleanup(func() { l.Close() })
	reach := sync.OnceFunc(func() { close(e.reached) })
	go func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			there, err := net.Dial("tcp", server)
			if err != nil {
				here.Close()
				return
			}
			go func() { _, _ = io.Copy(here, there); here.Close() }()
			go func() { e.forward(there, here, reach); there.Close() }()
		}
	}()
	return e
}

// forward forwards what a client sends.
func (e *exit) forward(to io.Writer, from io.Reader, reach func()) {
	buf := make([]byte, 1<<15)
	for {
		n, err := from.Read(buf)
		if bytes.Contains(buf[:n], []byte{0, 10, 0, 50}) { // connection.close
			reach()
			<-e.open
		}
		if _, failed := to.Write(buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

// checkMemory checks the resident memory that a process has had at most.
func checkMemory(t *testing.T, name string, p *running) {
	t.Helper()
	peak, err := statusKiB(p.Process.Pid, "VmHWM:")
	if err != nil {
		t.Fatal(err)
	}
	now, err := statusKiB(p.Process.Pid, "VmRSS:")
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%s uses %d KiB, at most %d", name, now, peak)
	if peak > maxSmallMemory {
		t.Errorf("%s uses %d KiB, want %d at most", name, peak, maxSmallMemory)
	}
}

// realLinks makes a folder with links to the peerlink binary for the four commands.
func realLinks(t *testing.T) (dir string) {
	t.Helper()
	program := filepath.Join(build(t), "peerlink")
	dir = t.TempDir()
	for _, name := range []string{"swpt-server", "swpt-client", "swpt-drainer", "configure-queue"} {
		if err := os.Symlink(program, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// statusKiB returns a value of the system's status of a process, in KiB.
func statusKiB(pid int, field string) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, field); ok {
			return strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s of process %d", field, pid)
}
