package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node/nodetype"
)

// offlinePrelude gives the commands of docs/offline.md what a person would: the passphrase, the agreement, and the
// fingerprint of the new peer's root key.
const offlinePrelude = `set -e
peerlink() {
	case "$*" in
	*' init '*) command peerlink "$@" --passphrase-file ../pass;;
	*' fulfil '*) command peerlink "$@" --passphrase-file ../pass --yes;;
	*' --peer '*) command peerlink "$@" --fingerprint "$(command peerlink bundle inspect --json their-node.zip | grep -o 'sha256:[0-9a-f]*')";;
	*) command peerlink "$@";;
	esac
}
`

// The commands of docs/offline.md, up to the replacement of a peer, make a node with a server certificate and a peer, on
// two machines that have only a stick in common; the online one never has the key.
func TestOfflinePage(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("skipped, the commands of docs/offline.md: there is no sh")
	}
	text, err := os.ReadFile("../../docs/offline.md")
	if err != nil {
		t.Fatal(err)
	}
	page, _, _ := strings.Cut(string(text), "\n## A peer has lost its root key")
	dir := t.TempDir()
	their := recoveryNode(t, dir, "their-node", nodetype.AccountingAuthority)
	for _, name := range []string{"laptop", "online", "stick"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	bundle, err := os.ReadFile(their.Bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "online", "their-node.zip"), bundle, 0o600); err != nil {
		t.Fatal(err)
	}
	machines := []string{"laptop", "laptop", "online", "online", "online", "laptop", "online"}
	commands := indented.FindAllStringSubmatch(page, -1)
	if len(commands) != len(machines) {
		t.Fatalf("the page has %d commands, want %d", len(commands), len(machines))
	}
	for i, c := range commands {
		run := exec.Command(shell, "-c", offlinePrelude+strings.ReplaceAll(c[1], "/media/stick", filepath.Join(dir, "stick")))
		run.Dir = filepath.Join(dir, machines[i])
		run.Env = append(os.Environ(), "NO_COLOR=1", "PEERLINK_DIR=", "PATH="+build(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
		if out, err := run.CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", c[1], err, out)
		}
	}
	for _, name := range []string{"server.crt", "my-node.zip", filepath.Join("node", "peers", their.Identity().ID, "peercert.crt")} {
		if _, err := os.Stat(filepath.Join(dir, "online", name)); err != nil {
			t.Error(err)
		}
	}
	for _, name := range []string{"online", "stick"} {
		if found, err := filepath.Glob(filepath.Join(dir, name, "node", "private", "*")); err != nil || len(found) > 0 {
			t.Errorf("keys on %s: %v, %v", name, found, err)
		}
	}
}
