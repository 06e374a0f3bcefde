package node_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// A name can not be taken for a node ID, for a flag or for another text on a terminal.
func TestCheckPeerName(t *testing.T) {
	for _, good := range []string{"a bank", "Ümläut & Söhne", "銀行", "x", "1234abcg", "bank-2", strings.Repeat("ü", 64)} {
		if err := node.CheckPeerName(good); err != nil {
			t.Error(err)
		}
	}
	for _, bad := range []string{
		"", " ", " bank", "bank ", "-bank", "abc", "1234", "1234abcd", "CAFE", "0123456789abcdef0123456789abcdef",
		"a\nb", "a\tb", "a\x1b[31mb", "a\u202eb", "a\u200bb", "a\u00a0b", "a\xffb", strings.Repeat("ü", 65),
	} {
		if err := node.CheckPeerName(bad); !errors.Is(err, node.ErrPeerName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// A name can be set, changed and removed; a refused one changes nothing. The names of two peers differ
// in more than the case of letters.
func TestSetPeerName(t *testing.T) {
	ctx := context.Background()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	var ids []string
	for range 2 {
		ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
		nodetest.Peer(t, aa, ca)
		ids = append(ids, ca.Identity().ID)
	}
	name := func(want string) {
		t.Helper()
		p, err := aa.Peer(ids[0])
		if err != nil {
			t.Fatal(err)
		}
		if p.Name != want {
			t.Errorf("the name is %q, want %q", p.Name, want)
		}
	}
	for _, to := range []string{"First", "first", "Harbour Bank"} {
		if err := aa.SetPeerName(ctx, ids[0], to); err != nil {
			t.Fatal(err)
		}
		name(to)
	}
	for _, bad := range []string{"a\nb", "1234abcd"} {
		if err := aa.SetPeerName(ctx, ids[0], bad); !errors.Is(err, node.ErrPeerName) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := aa.SetPeerName(ctx, ids[1], "HARBOUR bank"); !errors.Is(err, node.ErrPeerName) || !strings.Contains(err.Error(), ids[0]) {
		t.Errorf("a taken name: %v", err)
	}
	if err := aa.SetPeerName(ctx, "00000000", "x"); !errors.Is(err, node.ErrUnknownPeer) {
		t.Errorf("unknown peer: %v", err)
	}
	name("Harbour Bank")
	for range 2 {
		if err := aa.SetPeerName(ctx, ids[0], ""); err != nil {
			t.Fatal(err)
		}
		name("")
	}
}

// Whatever name.txt holds, the peer can be read, and has no name if the file holds none.
func TestBrokenPeerName(t *testing.T) {
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	nodetest.Peer(t, aa, ca)
	path := filepath.Join(aa.Path(), "peers", ca.Identity().ID, "name.txt")
	for _, content := range []string{"", "\n", "a\nb\n", "1234\n", "\x1b[2J", "\xff\xfe\x00", strings.Repeat("x", 2<<20)} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		p, err := aa.Peer(ca.Identity().ID)
		if err != nil || p.Name != "" {
			t.Errorf("%.20q: %v", content, err)
		}
		if _, err := aa.PeerName(ca.Identity().ID); err == nil {
			t.Errorf("%.20q: no reason", content)
		}
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := aa.Peer(ca.Identity().ID); err != nil {
		t.Error(err)
	}
}

// A peer is found by its ID, by a name, and by the beginning of its ID if that is unique, and by
// nothing else: a message must not go to another peer than the one that is meant.
func TestFindPeer(t *testing.T) {
	peers := []node.KnownPeer{
		{ID: "1234abcd", Name: "Harbour Bank"},
		{ID: "1234abce"},
		{ID: "1234abcd0123456789abcdef01234567", Name: "Agent"},
		{ID: "cafe0123456789abcdef0123456789ab", Name: "twin"},
		{ID: "deadbeef", Name: "Twin"},
	}
	for text, want := range map[string]string{
		"1234abcd":     "1234abcd",
		"1234abce":     "1234abce",
		"1234abcd0":    "1234abcd0123456789abcdef01234567",
		"cafe":         "cafe0123456789abcdef0123456789ab",
		"CAFE0":        "cafe0123456789abcdef0123456789ab",
		"cafe0123":     "cafe0123456789abcdef0123456789ab",
		"Harbour Bank": "1234abcd",
		"harbour bank": "1234abcd",
		"agent":        "1234abcd0123456789abcdef01234567",
	} {
		if id, err := node.FindPeer(peers, text); err != nil || id != want {
			t.Errorf("%q: %s, %v", text, id, err)
		}
	}
	for text, want := range map[string]string{
		"":         "too short",
		"dea":      "too short",
		"1234":     "1234abcd (Harbour Bank), 1234abce, 1234abcd0123456789abcdef01234567 (Agent)",
		"twin":     "cafe0123456789abcdef0123456789ab (twin), deadbeef (Twin)",
		"Harbour":  "unknown peer",
		"beef":     "unknown peer",
		"beef0000": "unknown peer beef0000",
		"../..":    "not a node ID",
	} {
		id, err := node.FindPeer(peers, text)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %s, %v", text, id, err)
		}
	}
}
