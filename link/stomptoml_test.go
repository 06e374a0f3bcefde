package link_test

import (
	"path/filepath"
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
)

// The node's own stomp.toml may change under a running service, also to an invalid one:
// no link is affected, and the log describes once the effect on peers and the remedy.
// Peers use the new one with the next info-bundle that is published.
func TestOwnManifestChanges(t *testing.T) {
	t.Parallel()
	m := newMover(t, link.Follow{Local: true, Every: 20 * impatient.After})
	m.other.Start()
	m.send(1)
	m.receive(1)
	manifest := filepath.Join(m.authority.Path(), "nodeinfo", "stomp.toml")
	rewrite(t, manifest, []byte("servers = ["))
	says(t, m.authority, "own stomp.toml can not be used", 1)
	exchange(t, m.authority, m.other, 2)

	elsewhere := forward(t, m.authority.Addr)
	m.manifest(elsewhere)
	says(t, m.authority, "own stomp.toml differs from the published one", 1)
	exchange(t, m.authority, m.other, 3)
	if got := m.known().Stomp.Servers[0]; got != m.authority.Addr {
		t.Errorf("the peer knows %s before it is published", got)
	}

	m.authority.Bundle(t)
	waitForLog(t, m.other, "new=["+elsewhere+"]")
	exchange(t, m.authority, m.other, 4)
	says(t, m.authority, "own stomp.toml", 2)
	if log := m.authority.Log.String(); strings.Contains(log, "its link ends") {
		t.Errorf("a link has ended:\n%s", log)
	}
}

// A service that starts with a stomp.toml that was not published logs that.
func TestOwnManifestAtStart(t *testing.T) {
	t.Parallel()
	n := linktest.New(t, aa)
	n.Bundle(t)
	n.WriteStompTOML("new.example.com:1234")
	n.Start()
	says(t, n, "own stomp.toml differs from the published one", 1)
}
