package node_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

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

// Backup and temporary files of editors and file managers in the nodeinfo folder do not become
// public, and Excluded returns them.
func TestLeftOut(t *testing.T) {
	a := nodetest.New(t, aa, "a.example.com:1")
	leftovers := []string{"#stomp.toml#", ".DS_Store", ".git", "4913", "Thumbs.db", "a/x.orig", "desktop.ini", "nohup.out", "stomp.toml.BAK", "stomp.toml.crdownload",
		"stomp.toml.dpkg-dist", "stomp.toml.old", "stomp.toml.part", "stomp.toml.rpmsave", "stomp.toml.save", "stomp.toml.swp", "stomp.toml~", "~$terms.docx"}
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
	left, err := a.Excluded()
	if slices.Sort(left); err != nil || !slices.Equal(left, leftovers) {
		t.Errorf("left out are %v, %v", left, err)
	}
}

// If peers would reject the name of a file, the error contains the name, and neither
// a bundle nor updated-at.txt is written.
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
		t.Error("updated-at.txt was written without a bundle")
	}
}

// A stomp.toml that a Windows editor or shell has written is accepted, and is
// converted in the bundle to the only form that the reference can read.
func TestStompTOMLFromWindows(t *testing.T) {
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
		if err := a.CheckStompTOML(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := node.ParseStompTOML([]byte(content), "x"); err == nil || !strings.Contains(err.Error(), "byte order mark") {
			t.Errorf("%s in a bundle: %v", name, err)
		}
	}
}

// The date of a new info-bundle is later than the dates of all earlier ones, even if the record
// of the last date was removed, damaged, or restored from a backup. Otherwise peers would ignore
// the new bundle.
func TestDateAfterLoss(t *testing.T) {
	for what, lose := range map[string]func(a *nodetest.Node){
		"removed":            func(a *nodetest.Node) { os.Remove(filepath.Join(a.Path(), "nodeinfo", "updated-at.txt")) },
		"garbled":            func(a *nodetest.Node) { writeInfo(t, a, "updated-at.txt", "yesterday\n") },
		"empty":              func(a *nodetest.Node) { writeInfo(t, a, "updated-at.txt", "") },
		"of an older backup": func(a *nodetest.Node) { writeInfo(t, a, "updated-at.txt", "2020-01-01\n") },
		"removed, no published bundle": func(a *nodetest.Node) {
			os.Remove(filepath.Join(a.Path(), "nodeinfo", "updated-at.txt"))
			os.Remove(a.PublishedBundle())
		},
		"older backup, no published bundle": func(a *nodetest.Node) {
			writeInfo(t, a, "updated-at.txt", "2020-01-01\n")
			os.Remove(a.PublishedBundle())
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			a := nodetest.New(t, aa, "a.example.com:1")
			a.Bundle(t)
			secondDate := nodetest.ReadBundle(t, a.Bundle(t)).UpdatedAt()
			lose(a)
			// Without any record, the new date could be the same second.
			for now := time.Now(); time.Now().Unix() == now.Unix(); time.Sleep(10 * time.Millisecond) {
			}
			if got := nodetest.ReadBundle(t, a.Bundle(t)).UpdatedAt(); got <= secondDate {
				t.Errorf("%s after %s", got, secondDate)
			}
		})
	}
}

// Files with secrets, and files outside of the nodeinfo folder to which it has a symbolic link, do
// not become public: the error contains the file's name, and updated-at.txt is not written.
func TestSecretsStayHere(t *testing.T) {
	outside := filepath.Join(t.TempDir(), "hosts")
	if err := os.WriteFile(outside, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	a := nodetest.New(t, aa, "a.example.com:1")
	info := func(name string) string { return filepath.Join(a.Path(), "nodeinfo", name) }
	link := func(to, name string) {
		t.Helper()
		if err := os.Symlink(to, info(name)); err != nil {
			t.Skip(err)
		}
	}
	writeInfo(t, a, "docs/terms.txt", "public")
	for name, put := range map[string]func(name string){
		"alice.txt":      func(name string) { writeInfo(t, a, name, "-----BEGIN ENCRYPTED PRIVATE KEY-----\n") },
		"passphrase.txt": func(name string) { writeInfo(t, a, name, "correct horse") },
		"hosts.txt":      func(name string) { link(outside, name) },
		"nodeid.txt":     func(name string) { link(filepath.Join("..", "db", "nodeid"), name) },
		"folder":         func(name string) { link(filepath.Dir(outside), name) },
		"inner":          func(name string) { link("docs", name) },
	} {
		put(name)
		err := a.CreateBundle(ctx, filepath.Join(t.TempDir(), "x.zip"), a.Key)
		if err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
		if err := os.Remove(info(name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(info(infobundle.UpdatedAt)); err == nil {
		t.Error("updated-at.txt was written without a bundle")
	}
	link(filepath.Join("docs", "terms.txt"), "terms.txt") // as Kubernetes links the files of a mounted volume
	if got := nodetest.ReadBundle(t, a.Bundle(t)).File("terms.txt"); string(got) != "public" {
		t.Errorf("terms.txt is %q", got)
	}
}

// If the output file exists, or is a broken symbolic link, neither a bundle nor
// updated-at.txt is written.
func TestBundleIsNew(t *testing.T) {
	a := nodetest.New(t, aa, "a.example.com:1")
	dir := t.TempDir()
	there, dangling := filepath.Join(dir, "there.zip"), filepath.Join(dir, "dangling.zip")
	if err := os.WriteFile(there, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", dangling); err != nil {
		t.Skip(err)
	}
	for path, want := range map[string]string{there: "exists already", dangling: "symbolic link to nowhere"} {
		if err := a.CreateBundle(ctx, path, a.Key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := os.Stat(filepath.Join(a.Path(), "nodeinfo", infobundle.UpdatedAt)); err == nil {
		t.Error("updated-at.txt was written without a bundle")
	}
}
