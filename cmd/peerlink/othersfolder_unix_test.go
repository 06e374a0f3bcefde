//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Root cannot make a node in a folder that belongs to another user. "key split" makes share
// pages in a folder that another user owns or can write to, but prints a warning. If a share
// is given twice, the error names both of its files.
func TestFoldersOfOthers(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse"))
	o.makesNode("key", "pass")
	if err := os.Mkdir(o.path("pages"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(o.path("pages"), 0o777); err != nil {
		t.Fatal(err)
	}
	split := []string{"-C", "node", "key", "split", "--shares", "2", "--threshold", "2", "--text", "--key", "key", "--passphrase-file", "pass", "--out"}
	if out := o.does(append(split, "pages")...); !strings.Contains(out, "every user can make and replace files in pages") {
		t.Errorf("no warning about the mode of the folder:\n%s", out)
	}
	first := "pages/share-1-of-2.txt"
	o.write("copy.txt", []byte(o.read(first)))
	o.cannot(first+" and copy.txt: share given twice", "-C", "node", "key", "drill", "--passphrase-file", "pass", first, "copy.txt")
	if out := o.does("-C", "node", "request", "list", "--json"); strings.TrimSpace(out) != "[]" {
		t.Errorf("request list --json: %s", out)
	}

	if os.Geteuid() != 0 {
		t.Skip("only root can give a folder to another user")
	}
	if err := os.Mkdir(o.path("others"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(o.path("others"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	o.cannot("belongs to another user", "-C", "others", "init", "creditors-agent", "--server", "ca.example.com:1234", "--key-type", "p256", "--passphrase-file", "pass")
	if entries, err := os.ReadDir(o.path("others")); err != nil || len(entries) > 0 {
		t.Errorf("%s has %v, %v", filepath.Base(o.path("others")), entries, err)
	}
	if out := o.does(append(split, "others")...); !strings.Contains(out, "belongs to another user") {
		t.Errorf("no warning about the owner of the folder:\n%s", out)
	}
}
