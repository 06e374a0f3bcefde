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

// maxSmallMemory is the memory limit of configure-queue, and the requested memory of each
// client, in the reference's Kubernetes manifests, in KiB.
const maxSmallMemory = 32 << 10

// A client that has sent all messages and waits for more uses no more memory than the
// reference's manifests request for it. configure-queue does less work than a client. It is
// not measured because it ends too soon: the memory that the system reports for a process
// after its end includes the memory of the test process that started it. (The test measures
// the peerlink binary, since a program with the race detector uses several times as much
// memory.)
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
	t.Logf("an idle client uses %d KiB", used)
	if used > maxSmallMemory {
		t.Errorf("an idle client uses %d KiB, want %d at most", used, maxSmallMemory)
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

// residentMemory returns the resident memory of a process, in KiB.
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
