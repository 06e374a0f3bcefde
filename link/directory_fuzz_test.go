package link_test

import (
	"os"
	"path/filepath"
	"testing"

	"peerlink/link"
	"peerlink/node"
	"peerlink/node/nodetest"
)

// Whatever bytes are in a file of a node's directory, reading it gives an error,
// or a peer whose broker objects have names that can be used; never a panic.
func FuzzDirectory(f *testing.F) {
	files := []string{
		"db/nodetype", "db/nodeid", "creditors-subnet.txt", "db/subnets/creditors/SEQNUM", "root-ca.crt", // of the node
		"nodetype.txt", "queues.txt", "masq-subnet.txt", "subnet.txt", "DEACTIVATED", "ACTIVE", // of the peer
		"nodeinfo/stomp.toml", "nodeinfo/updated_at.txt", "root-ca.crt", "peercert.crt", "sub-ca.crt",
	}
	const ofNode = 5
	authority, agent := nodetest.New(f, aa, "127.0.0.1:1"), nodetest.New(f, ca, "127.0.0.1:2")
	nodetest.Peer(f, authority, agent)
	type place struct {
		dir  string
		peer string
		path string
	}
	var places []place
	for _, pair := range [][2]*nodetest.Node{{authority, agent}, {agent, authority}} {
		id := pair[1].Identity().ID
		for i, name := range files {
			path := filepath.Join(pair[0].Path(), filepath.FromSlash(name))
			if i >= ofNode {
				path = filepath.Join(pair[0].Path(), "peers", id, filepath.FromSlash(name))
			}
			if data, err := os.ReadFile(path); err == nil {
				f.Add(uint8(len(places)), data)
			}
			places = append(places, place{pair[0].Path(), id, path})
		}
	}
	f.Fuzz(func(t *testing.T, n uint8, data []byte) {
		p := places[int(n)%len(places)]
		old, oldErr := os.ReadFile(p.path)
		if err := os.WriteFile(p.path, data, 0o644); err != nil {
			t.Skip(err) // there is no such place in a directory of this kind
		}
		defer func() {
			if oldErr != nil {
				os.Remove(p.path)
			} else if err := os.WriteFile(p.path, old, 0o644); err != nil {
				t.Fatal(err)
			}
		}()
		d, err := node.Open(p.dir)
		if err != nil {
			return
		}
		peer, err := d.Peer(p.peer)
		if err != nil {
			return
		}
		view, err := link.View(d, peer)
		if err != nil {
			return
		}
		q, err := link.PeerQueue(d, peer, view, link.DefaultQueuePattern)
		if err != nil {
			return
		}
		if len(q.Queues) == 0 || len(q.Queues) > 99 || q.Exchange == "" || q.PeerID != p.peer || len(q.BindingKey) > 255 {
			t.Errorf("accepted %+v", q)
		}
	})
}
