package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// maxSmallMemory is the memory that the reference's Kubernetes manifests leave to
// configure-queue, and request for each client, in KiB.
const maxSmallMemory = 32 << 10

// A client that has sent what there was and waits for more fits in the memory that the
// reference's manifests give it. configure-queue does less, and ends too soon to be
// looked at: what the system says of a process that has ended includes the memory of
// the test from which it was started. (The real program is measured: with the race
// detector any takes several times as much.)
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
	declareInbox(t, conn, authority.Identity().Type.Inbox())

	peer := authority.Identity().ID
	configure := agent.start("configure-queue", peer, "to."+peer)
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
	used, err := residentMemory(client.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("an idle client has %d KiB", used)
	if used > maxSmallMemory {
		t.Errorf("an idle client has %d KiB, want %d at most", used, maxSmallMemory)
	}
}

// realLinks makes the four names of the real program.
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

// residentMemory returns how much memory a process has, in KiB.
func residentMemory(pid int) (int64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			return strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
		}
	}
	return 0, fmt.Errorf("no VmRSS of process %d", pid)
}
