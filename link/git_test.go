package link_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/nodetest"
)

// git runs a git command on a work tree.
func git(t *testing.T, tree string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"-c", "user.name=x", "-c", "user.email=x@example.com"}, args...)...)
	cmd.Dir = tree
	cmd.Env = append(os.Environ(), "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_GLOBAL="+os.DevNull)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("git %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// A node's directory may be a git work tree. While versions are checked out back and
// forth, with the peer at other addresses and with other peers, the link stays up and
// all messages are delivered. A version in which the peer is deactivated ends the link.
func TestGitCheckout(t *testing.T) {
	t.Parallel()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("skipped, a node's directory in git: there is no git")
	}
	authority, other, added := linktest.New(t, aa), linktest.New(t, ca), linktest.New(t, ca)
	tree, id := authority.Path(), other.Identity().ID
	var versions []string
	commit := func(what string) {
		git(t, tree, "add", "--all")
		git(t, tree, "commit", "--quiet", "--message", what)
		versions = append(versions, strings.TrimSpace(git(t, tree, "rev-parse", "HEAD")))
	}
	git(t, tree, "init", "--quiet")
	nodetest.Peer(t, authority.Node, other.Node)
	commit("as it was")
	moved := forward(t, other.Addr)
	manifest := filepath.Join(tree, "peers", id, "nodeinfo", "stomp.toml")
	if err := os.WriteFile(manifest, node.EncodeStompTOML(ca, []string{moved}), 0o644); err != nil {
		t.Fatal(err)
	}
	commit("the peer has moved")
	nodetest.Peer(t, authority.Node, added.Node)
	commit("another peer")
	if _, err := authority.DeactivatePeer(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	commit("the peer is deactivated")
	checkout := func(n int) { git(t, tree, "checkout", "--quiet", versions[n]) }

	checkout(0)
	authority.Start()
	other.Start()
	added.Start()
	ways := [][2]*linktest.Node{{authority, other}, {other, authority}}
	exchange(t, authority, other, 1_000_000)
	for _, way := range ways {
		way[0].WaitDrained(way[1], 0)
	}
	const each = 100
	rounds := []int{1, 2, 0, 1, 0, 2, 1, 0, 1, 2}
	for round, n := range rounds {
		for _, way := range ways {
			way[0].Put(way[1], numbered(t, way[0], way[1], round*each, each)...)
		}
		checkout(n)
		server := []string{other.Addr, moved, moved}[n]
		linktest.Eventually(t, "the server of the version", func() error {
			connections := statusOf(t, authority, other).Connections
			for _, c := range connections {
				if c.Direction == link.Sending && c.Remote == server {
					return nil
				}
			}
			return fmt.Errorf("connections are %+v, want one to %s", connections, server)
		})
	}
	for _, way := range ways {
		way[1].Take(len(rounds) * each)
		way[0].WaitDrained(way[1], 0)
	}
	flows(t, authority, added, 1_000_001)
	ends := func() (lines []string) {
		for line := range strings.Lines(authority.Log.String()) {
			if strings.Contains(line, "its link ends") && strings.Contains(line, "peer="+id) {
				lines = append(lines, line)
			}
		}
		return lines
	}
	if lines := ends(); len(lines) > 0 {
		t.Errorf("the link has been cut: %s", lines)
	}

	checkout(3)
	waitForLog(t, other, "no active link with you")
	if lines := ends(); len(lines) != 1 || !strings.Contains(lines[0], "deactivated") {
		t.Errorf("the end of the link is logged as %s", lines)
	}
}

// statusOf returns the status of a peer in a node's service.
func statusOf(t *testing.T, n, peer *linktest.Node) link.PeerStatus {
	t.Helper()
	for _, p := range n.Service.Status().Peers {
		if p.ID == peer.Identity().ID {
			return p
		}
	}
	t.Fatalf("%v does not know %v", n.Identity(), peer.Identity())
	return link.PeerStatus{}
}
