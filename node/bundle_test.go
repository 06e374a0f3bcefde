package node_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
)

// writeInfo writes a file of a node's own nodeinfo.
func writeInfo(t *testing.T, n *nodetest.Node, name, content string) {
	t.Helper()
	path := filepath.Join(n.Path(), "nodeinfo", filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

// What editors and file managers leave in the nodeinfo folder does not become
// public, and a person can be told of it.
func TestLeftOut(t *testing.T) {
	a := nodetest.New(t, aa, "a.example.com:1")
	leftovers := []string{"#stomp.toml#", ".DS_Store", ".git", "4913", "Thumbs.db", "a/x.orig", "desktop.ini", "nohup.out", "stomp.toml.BAK",
		"stomp.toml.dpkg-dist", "stomp.toml.old", "stomp.toml.rpmsave", "stomp.toml.save", "stomp.toml.swp", "stomp.toml~", "~$terms.docx"}
	for _, name := range leftovers {
		if name == ".git" {
			name += "/config"
		}
		writeInfo(t, a, name, "secret draft")
	}
	writeInfo(t, a, "a/x.txt", "public")
	var names []string
	for _, f := range nodetest.ReadBundle(t, a.Bundle(t)).Nodeinfo {
		names = append(names, f.Name)
	}
	if got := strings.Join(names, " "); got != "a/x.txt stomp.toml updated-at.txt" {
		t.Errorf("the bundle has %s", got)
	}
	left, err := a.LeftOut()
	if slices.Sort(left); err != nil || !slices.Equal(left, leftovers) {
		t.Errorf("left out are %v, %v", left, err)
	}
}

// A file whose name no peer would take gives an error that names it, and no
// bundle; nor does it use up a date.
func TestBadName(t *testing.T) {
	a := nodetest.New(t, aa, "a.example.com:1")
	for _, name := range []string{"HEAD", "a b.txt", "a/b/c.txt", "aux.txt"} {
		writeInfo(t, a, name, "x")
		err := a.CreateBundle(ctx, filepath.Join(t.TempDir(), "x.zip"), a.Key)
		if err == nil || !strings.Contains(err.Error(), name) || !strings.Contains(err.Error(), "rename it") {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(filepath.Join(a.Path(), "nodeinfo", filepath.FromSlash(name))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(a.Path(), "nodeinfo", infobundle.UpdatedAt)); err == nil {
		t.Error("there is a date without a bundle")
	}
}

// A stomp.toml that a Windows editor or shell has written works, and goes into
// the bundle in the one form that the reference reads.
func TestWindowsManifest(t *testing.T) {
	const text = "servers = [\"new.example.com:1\"]\r\nhost = \"/\"\r\ndestination = \"/exchange/accounts_in\"\r\n"
	a := nodetest.New(t, aa, "a.example.com:1")
	utf16 := "\xff\xfe"
	for _, c := range text {
		utf16 += string([]byte{byte(c), 0})
	}
	for name, content := range map[string]string{"UTF-8 with a mark": "\ufeff" + text, "UTF-16": utf16} {
		writeInfo(t, a, "stomp.toml", content)
		b := nodetest.ReadBundle(t, a.Bundle(t))
		if got := string(b.File("stomp.toml")); got != text {
			t.Errorf("%s: the bundle has %q", name, got)
		}
		if err := a.CheckManifest(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := node.ParseStompTOML([]byte(content), "x"); err == nil || !strings.Contains(err.Error(), "byte order mark") {
			t.Errorf("%s in a bundle: %v", name, err)
		}
	}
}
