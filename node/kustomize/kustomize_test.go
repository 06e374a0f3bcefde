package kustomize

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// newPeers makes the peers folder of a node that is deployed as "swpt-x", with
// folders for the given peers, and returns it.
func newPeers(t *testing.T, ids ...string) string {
	t.Helper()
	peers := filepath.Join(t.TempDir(), "prod", "swpt-x", "node", "peers")
	for _, id := range ids {
		if err := os.MkdirAll(filepath.Join(peers, id, "nodeinfo"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return peers
}

func write(t *testing.T, data string, elem ...string) {
	t.Helper()
	path := filepath.Join(elem...)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(data), 0o644); err != nil {
		t.Fatal(err)
	}
}

// snapshot returns the contents and the modification times of all files below a
// folder.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	files := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		rel, _ := filepath.Rel(dir, path)
		files[filepath.ToSlash(rel)] = fi.ModTime().String() + "\n" + string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// The manifest has exactly this content, which was compared, as YAML, with that of
// the reference for the same peers.
func TestManifest(t *testing.T) {
	const want = `# Generated for this peer, and written again whenever the peer changes.
# What you want to change goes to resources-patch.yaml, or into the base.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization

resources:
- "../../../../../base/swpt-x/peer/stomp-client.yaml"

patches:
- target:
    group: apps
    version: v1
    kind: StatefulSet
    name: stomp-client
  patch: |-
    - op: add
      path: /metadata/annotations/swpt-node-id
      value: "12345678"
    - op: replace
      path: /spec/replicas
      value: 3
    - op: replace
      path: /spec/template/spec/containers/0/args/0
      value: swpt-client
    - op: replace
      path: /spec/template/spec/containers/0/env/0/value
      value: "2026-11-02"
- target:
    group: apps
    version: v1
    kind: StatefulSet
    name: stomp-client
  path: resources-patch.yaml

replacements:
- path: "../../../../../base/swpt-x/peer/replacements/stomp-client-node-id.yaml"
`
	p := Peer{ID: aaID, Queues: 3, UpdatedAt: "2026-11-02"}
	if got := string(manifest(p, "swpt-x")); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	p.Deactivated = true
	drained := strings.Replace(want, "swpt-client\n", "swpt-drainer\n", 1)
	if got := string(manifest(p, "swpt-x")); got != drained {
		t.Errorf("deactivated: got:\n%s\nwant:\n%s", got, drained)
	}
}

// Text from a peer, and from the name of a folder, stays within its quotes: all
// other lines of the manifest are unchanged, and unquoting gives the original text.
func TestManifestHostileText(t *testing.T) {
	if text := string(manifest(Peer{ID: aaID, Queues: 3, Deactivated: true, HandedOver: true}, "app")); !strings.Contains(text, "value: 0\n") || strings.Contains(text, "value: 3\n") {
		t.Errorf("the queues that lead to another peer would be drained:\n%s", text)
	}
	plain := strings.Split(string(manifest(Peer{ID: aaID, Queues: 1}, "app")), "\n")
	for _, text := range append(hostile, unprintable...) {
		for _, p := range []struct {
			updatedAt, app string
			differ         int
		}{{text, "app", 1}, {"", text, 2}} {
			got := strings.Split(string(manifest(Peer{ID: aaID, Queues: 1, UpdatedAt: p.updatedAt}, p.app)), "\n")
			if len(got) != len(plain) {
				t.Errorf("%q: %d lines instead of %d", text, len(got), len(plain))
				continue
			}
			differ := 0
			for i, line := range got {
				if line == plain[i] {
					continue
				}
				differ++
				quoted := line[strings.Index(line, `"`):]
				if strings.ContainsFunc(quoted, func(r rune) bool { return r < ' ' || r > '~' }) {
					t.Errorf("%q: line %q is not plain ASCII", text, line)
				}
				if back, err := strconv.Unquote(quoted); err != nil || !strings.Contains(back, text) {
					t.Errorf("%q: line %q reads back as %q, %v", text, line, back, err)
				}
			}
			if differ != p.differ {
				t.Errorf("%q: %d lines differ, want %d", text, differ, p.differ)
			}
		}
	}
}

// hostile has texts that are permitted as the date of a peer's nodeinfo, and that
// have a meaning in YAML, Kustomize or Kubernetes.
var hostile = []string{
	`"; x: "`, `\`, `\"`, `\n- x`, "'", "# no comment", "a: b #", "{a: [b", "&a *a !!x %x @x `x", "- - -", " ", "$(POD_IP)", "null", "2026-11-02T10:00:00Z",
}

// unprintable has texts that are not permitted as such a date.
var unprintable = []string{
	"\"\n    - op: remove\n      path: /spec\n      value: \"",
	"\t", "\r\n", "---\n...", "\x00\x07\x1b[2J\x7f", "\u0085\u2028\u2029\ufeff\u202e", "Ünï\U0001f4a5",
}

// Update creates the three files, rewrites those whose content changes, and never
// changes the operator's files.
func TestUpdate(t *testing.T) {
	peers := newPeers(t, aaID, caID)
	write(t, "stays", peers, aaID, "queues.txt")
	app, err := BaseApp(peers)
	if err != nil || app != "swpt-x" {
		t.Fatalf("BaseApp: %q, %v", app, err)
	}
	update := func(p Peer) map[string]string {
		t.Helper()
		if err := Update(peers, p, app); err != nil {
			t.Fatal(err)
		}
		return snapshot(t, peers)
	}
	changed := func(before, after map[string]string) (names []string) {
		for _, name := range []string{"kustomization.yaml", aaID + "/kustomization.yaml", aaID + "/resources-patch.yaml"} {
			if before[name] != after[name] {
				names = append(names, name)
			}
		}
		return names
	}
	p := Peer{ID: aaID, Queues: 1, UpdatedAt: "2026-11-02"}
	first := update(p)
	if len(first) != 4 || len(changed(nil, first)) != 3 {
		t.Fatalf("the first Update has made %v", reflect.ValueOf(first).MapKeys())
	}
	if again := update(p); !reflect.DeepEqual(first, again) {
		t.Errorf("a second Update has changed %v", changed(first, again))
	}
	const own = "# mine\n[]\n"
	write(t, own, peers, aaID, "resources-patch.yaml")
	before := snapshot(t, peers)
	for _, c := range []struct {
		what   string
		change func()
	}{
		{"queues", func() { p.Queues = 2 }},
		{"date", func() { p.UpdatedAt = "2026-11-03" }},
		{"deactivated", func() { p.Deactivated = true }},
	} {
		c.change()
		after := update(p)
		if got := changed(before, after); !reflect.DeepEqual(got, []string{aaID + "/kustomization.yaml"}) {
			t.Errorf("%s: changed %q", c.what, got)
		}
		before = after
	}
	update(Peer{ID: caID, Queues: 1})
	list, err := os.ReadFile(filepath.Join(peers, "kustomization.yaml"))
	if err != nil || !strings.HasSuffix(string(list), "resources:\n- "+aaID+"/\n- "+caID+"/\n") {
		t.Errorf("aggregator: %q, %v", list, err)
	}
}

// A resources-patch.yaml that is a symbolic link, even a dangling one, is the
// operator's, and is kept.
func TestUpdateKeepsLink(t *testing.T) {
	peers := newPeers(t, aaID)
	path := filepath.Join(peers, aaID, "resources-patch.yaml")
	if err := os.Symlink("../nowhere.yaml", path); err != nil {
		t.Skip("no symbolic links here; a patch that is one was not tested")
	}
	if err := Update(peers, Peer{ID: aaID, Queues: 1}, "x"); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(path); err != nil || to != "../nowhere.yaml" {
		t.Errorf("the link is gone: %q, %v", to, err)
	}
}

// Update refuses invalid arguments before it has written any file.
func TestUpdateRefuses(t *testing.T) {
	good := Peer{ID: aaID, Queues: 1}
	type refused struct {
		name string
		p    Peer
		app  string
	}
	cases := []refused{
		{"ID with a path", Peer{ID: "../12345", Queues: 1}, "x"},
		{"ID in capitals", Peer{ID: "ABCDEF00", Queues: 1}, "x"},
		{"no ID", Peer{Queues: 1}, "x"},
		{"unknown peer", Peer{ID: "deadbeef", Queues: 1}, "x"},
		{"no queues", Peer{ID: aaID}, "x"},
		{"100 queues", Peer{ID: aaID, Queues: 100}, "x"},
		{"long date", Peer{ID: aaID, Queues: 1, UpdatedAt: strings.Repeat("x", 65)}, "x"},
		{"no app", good, ""}, {"root", good, "/"}, {"parent", good, ".."}, {"path", good, "a/b"},
		{"app with a line end", good, "a\nb"}, {"app that is not UTF-8", good, "a\xff"},
	}
	for _, text := range append(unprintable, "\xff") {
		cases = append(cases, refused{text, Peer{ID: aaID, Queues: 1, UpdatedAt: text}, "x"})
	}
	for _, c := range cases {
		peers := newPeers(t, aaID)
		if err := Update(peers, c.p, c.app); err == nil {
			t.Errorf("%q: accepted", c.name)
		}
		if files := snapshot(t, peers); len(files) != 0 {
			t.Errorf("%q: wrote %v", c.name, files)
		}
	}
}

// If the aggregator cannot be edited, Update keeps it unchanged, and still creates
// the peer's own files.
func TestUpdateStrangeAggregator(t *testing.T) {
	peers := newPeers(t, aaID)
	const list = "resources: [a/]\n"
	write(t, list, peers, "kustomization.yaml")
	if err := Update(peers, Peer{ID: aaID, Queues: 1}, "x"); !errors.Is(err, errAggregator) {
		t.Errorf("got %v, want %v", err, errAggregator)
	}
	if got, err := os.ReadFile(filepath.Join(peers, "kustomization.yaml")); err != nil || string(got) != list {
		t.Errorf("the aggregator is now %q, %v", got, err)
	}
	if _, err := os.Stat(filepath.Join(peers, aaID, "kustomization.yaml")); err != nil {
		t.Error(err)
	}
}

// Peers that are registered at the same time are all listed.
func TestUpdateConcurrent(t *testing.T) {
	var ids []string
	for i := range 16 {
		ids = append(ids, strconv.FormatInt(0xabcdef00+int64(i), 16))
	}
	peers := newPeers(t, ids...)
	var wg sync.WaitGroup
	for _, id := range ids {
		wg.Go(func() {
			if err := Update(peers, Peer{ID: id, Queues: 1}, "x"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	list, err := os.ReadFile(filepath.Join(peers, "kustomization.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		if n := strings.Count(string(list), "- "+id+"/\n"); n != 1 {
			t.Errorf("%s is listed %d times", id, n)
		}
	}
	if files := snapshot(t, peers); len(files) != 1+2*len(ids) {
		t.Errorf("%d files, want %d: %v", len(files), 1+2*len(ids), reflect.ValueOf(files).MapKeys())
	}
}

// Enabled reports whether the folder has files for Kustomize, or the reference's
// program that makes them. The placeholder alone is not enough: it means that the
// program was deleted.
func TestEnabled(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(peers string)
		want bool
	}{
		{"no folder", func(peers string) { os.RemoveAll(peers) }, false},
		{"peers only", func(peers string) { write(t, "", peers, aaID, "queues.txt") }, false},
		{"placeholder", func(peers string) { write(t, referencePlaceholder, peers, "kustomization.yaml") }, false},
		{"placeholder and the reference's program", func(peers string) {
			write(t, referencePlaceholder, peers, "kustomization.yaml")
			write(t, "#!/bin/bash\n", peers, "create-peer-manifest")
		}, true},
		{"aggregator", func(peers string) { write(t, "resources:\n- x/\n", peers, "kustomization.yaml") }, true},
		{"aggregator that can not be read", func(peers string) { os.Mkdir(filepath.Join(peers, "kustomization.yaml"), 0o755) }, true},
		{"manifest", func(peers string) { write(t, "", peers, aaID, "kustomization.yaml") }, true},
		{"manifest of something else", func(peers string) { write(t, "", peers, "monitoring", "kustomization.yaml") }, false},
		{"a peer's nodeinfo", func(peers string) { write(t, "", peers, aaID, "nodeinfo", "kustomization.yaml") }, false},
	} {
		peers := newPeers(t, aaID)
		c.make(peers)
		if got := Enabled(peers); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
