// Package check builds the overlays beside it, as "kubectl apply -k" would, and
// checks what comes out. It is a module of its own, so that nobody who builds
// peerlink has to fetch Kubernetes.
package check

import (
	"bytes"
	"flag"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"sigs.k8s.io/kustomize/api/krusty"
	"sigs.k8s.io/kustomize/kyaml/filesys"
)

var update = flag.Bool("update", false, "write testdata/rendered anew, to be reviewed")

// overlays are what testdata/rendered has, by name.
var overlays = []string{"swpt", "image", "serve", "small"}

// What Kustomize makes of each overlay is what was reviewed (testdata/rendered), and
// what the tests of cmd/peerlink run.
func TestRendered(t *testing.T) {
	for _, name := range overlays {
		got, path := render(t, name), rendered(name)
		if *update {
			if err := os.WriteFile(path, got, 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, want) {
			t.Errorf("%s is not what Kustomize makes of the overlay now: look at the difference after \"go test -update\" in deploy/kubernetes/check", path)
		}
	}
}

func rendered(name string) string { return filepath.Join("testdata", "rendered", name+".yaml") }

// render builds an overlay as its README says: a component is named in the
// kustomization of a node of swpt-k8s-config, of which testdata has a stand-in, and
// three files lie beside that of a small node. "swpt" is the node without a component.
func render(t *testing.T, name string) []byte {
	t.Helper()
	disk := filesys.MakeFsInMemory()
	for _, dir := range []string{"image", "serve", "monitoring", "small"} {
		load(t, disk, filepath.Join("..", dir), filepath.Join("/app/peerlink", dir))
	}
	load(t, disk, "testdata/swpt", "/app/swpt")
	dir := "/app/node"
	switch name {
	case "small":
		dir = "/app/peerlink/small"
		for _, file := range []string{"node.tar.gz", "server.crt", "server.key"} {
			write(t, disk, filepath.Join(dir, file), []byte("an example\n"))
		}
	default:
		node, err := os.ReadFile("testdata/node.yaml")
		if err != nil {
			t.Fatal(err)
		}
		if name != "swpt" {
			node = append(node, "components:\n- ../peerlink/"+name+"\n"...)
		}
		write(t, disk, filepath.Join(dir, "kustomization.yaml"), node)
	}
	resources, err := krusty.MakeKustomizer(krusty.MakeDefaultOptions()).Run(disk, dir)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	out, err := resources.AsYaml()
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return out
}

// load copies a folder into disk.
func load(t *testing.T, disk filesys.FileSystem, from, to string) {
	t.Helper()
	err := filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		write(t, disk, filepath.Join(to, rel), data)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func write(t *testing.T, disk filesys.FileSystem, path string, data []byte) {
	t.Helper()
	if err := disk.WriteFile(path, data); err != nil {
		t.Fatal(err)
	}
}
