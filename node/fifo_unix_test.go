//go:build unix

package node_test

import (
	"crypto"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetest"
)

// If any file of the directory is replaced by a named pipe or a folder, no command blocks,
// and "check" reports a problem.
func TestNoRegularFile(t *testing.T) {
	t.Parallel()
	n, peer, other := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, da, "da.example.com:1234")
	nodetest.Peer(t, n, peer)
	bundle := nodetest.ReadBundle(t, other.Bundle(t))
	files := []string{"ACTIVE", "DEACTIVATED", "SUSPENDED", "NOFOLLOW"}
	for i := range files {
		files[i] = "peers/" + peer.Identity().ID + "/" + files[i]
	}
	files = append(files, node.DrillFile)
	err := fs.WalkDir(os.DirFS(n.Path()), ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			files = append(files, name)
		}
		return err
	})
	if err != nil || len(files) < 20 {
		t.Fatalf("files %q, %v", files, err)
	}
	put := map[string]func(path string) error{
		"named pipe": func(path string) error { return syscall.Mkfifo(path, 0o644) },
		"folder":     func(path string) error { return os.Mkdir(path, 0o755) },
	}
	for what, put := range put {
		for _, name := range files {
			t.Run(what+" "+name, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				if err := os.CopyFS(dir, os.DirFS(n.Path())); err != nil {
					t.Fatal(err)
				}
				path := filepath.Join(dir, filepath.FromSlash(name))
				os.Remove(path)
				if err := put(path); err != nil {
					t.Fatal(err)
				}
				done := make(chan struct{})
				go func() {
					defer close(done)
					report, err := check.Run(ctx, dir, check.Options{})
					if err != nil || !slices.ContainsFunc(report.Findings, func(f check.Finding) bool { return f.Subject == name && f.Severity == check.Problem }) {
						t.Errorf("check: %v, %+v", err, report)
					}
					d, err := node.Open(dir)
					if err != nil {
						return
					}
					d.Peer(peer.Identity().ID)
					d.SignPeer(ctx, bundle, func() (crypto.Signer, error) { return n.Key, nil })
				}()
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					t.Error("the command blocks")
				}
			})
		}
	}
}
