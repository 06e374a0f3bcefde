package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"peerlink/local"
	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/smp"
)

const recoveryPass = "correct horse battery staple"

// recoveryPrelude is what the commands of a page run after. In place of the person at the terminal, it gives the
// passphrase, and the fingerprint of the root key in the info-bundle that a command takes.
const recoveryPrelude = `set -e
peerlink() {
	help=$(command peerlink "$@" --help)
	case "$help" in *--passphrase-file*) set -- "$@" --passphrase-file pass;; esac
	case "$help" in *--new-passphrase-file*) set -- "$@" --new-passphrase-file new-pass;; esac
	for word; do
		case "$help $word" in *--fingerprint*' '*.zip)
			set -- "$@" --fingerprint "$(command peerlink bundle inspect --json "$word" | grep -o 'sha256:[0-9a-f]*')";;
		esac
	done
	case "$*" in *' state adopt '*) set -- "$@" --yes;; esac
	command peerlink "$@"
	case "$help" in *--new-passphrase-file*) cp new-pass pass;; esac
}
`

// Every command in the pages about lost and stolen keys, and about copies of the key, works as it stands there, section by section, with nodes that
// are peers of each other at the beginning, and the directories are in order at the end.
func TestRecoveryPages(t *testing.T) {
	t.Parallel()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("skipped, the commands of the pages about lost keys: there is no sh")
	}
	const aa, ca = nodetype.AccountingAuthority, nodetype.CreditorsAgent
	for _, c := range []struct {
		page, section string
		mine          nodetype.Type
		commands      int
		prepare       func(t *testing.T, mine, theirs *nodetest.Node)
		end           func(t *testing.T, mine, theirs *nodetest.Node) // nil: only the directories are checked
	}{
		{"rootkeylost", "A creditors agent or a debtors agent", ca, 10, nil, nil},
		{"rootkeylost", "An accounting authority", aa, 12, waitingMessage, checkDelivered},
		{"newid", "An accounting authority", aa, 9, nil, nil},
		{"passphraseknown", "The file has been in your hands only", aa, 4, nil, nil},
		{"passphraseknown", "Somebody may have had the file", ca, 1, nil, nil},
		{"peerlostkey", "", ca, 1, nil, nil},
		{"peerlostkey", "The peer is an accounting authority", ca, 4, successor, nil},
		{"peerlostkey", "The peer is an agent", aa, 4, successor, nil},
		{"peerlostkey", "Signed by mistake", aa, 2, unregistered, nil},
		{"keys", "The node's directory", ca, 4, nil, nil},
		{"keys", "Shares on paper", ca, 2, nil, nil},
		{"keys", "Drills", ca, 2, copiedKey, nil},
	} {
		t.Run(c.page+", "+c.section, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			t.Logf("in %s", dir)
			theirs := ca
			if c.mine == ca {
				theirs = aa
			}
			my, their := recoveryNode(t, dir, "my-node", c.mine), recoveryNode(t, dir, "their-node", theirs)
			nodetest.Peer(t, my, their)
			if c.prepare != nil {
				c.prepare(t, my, their)
			}
			script, n := recoveryScript(t, c.page, c.section, dir, my, their)
			if n != c.commands {
				t.Errorf("the section has %d commands, want %d", n, c.commands)
			}
			run := exec.Command(shell, "-c", script)
			run.Dir = dir
			run.Env = append(os.Environ(), "NO_COLOR=1", "PEERLINK_DIR=", "PATH="+build(t)+string(os.PathListSeparator)+os.Getenv("PATH"))
			if out, err := run.CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s\n%s", err, strings.TrimPrefix(script, recoveryPrelude), out)
			}
			for _, name := range []string{"my-node", "their-node", "new-node"} {
				if _, err := os.Stat(filepath.Join(dir, name)); err != nil {
					continue
				}
				if out, err := exec.Command(program(t), "-C", filepath.Join(dir, name), "check").CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", name, err, out)
				}
			}
			if c.end != nil {
				c.end(t, my, their)
			}
		})
	}
}

// recoveryServer returns a service for a node of the test, with a state folder. The server certificate of a node
// without a key is the one that the commands have made.
func recoveryServer(t *testing.T, n *nodetest.Node, state string) *server {
	t.Helper()
	dir := filepath.Dir(n.Path())
	s := &server{Node: n, t: t, addr: n.OwnServers()[0], state: filepath.Join(dir, state), cert: filepath.Join(dir, "server.crt"), key: filepath.Join(dir, "server.key")}
	if err := os.MkdirAll(s.state, 0o700); err != nil {
		t.Fatal(err)
	}
	if n.Key != nil {
		s.cert, s.key = n.ServerCert(t)
	}
	return s
}

// waitingMessage makes a message for theirs wait in the state folder of mine, whose service is killed.
func waitingMessage(t *testing.T, mine, theirs *nodetest.Node) {
	t.Helper()
	s := recoveryServer(t, mine, "state")
	s.start()
	defer s.kill()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	app := newApplication(s, &server{Node: theirs})
	client, err := app.dial(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, s.log())
	}
	defer client.Close()
	stored := make(chan error, 1)
	own, other := mine.Identity().Type, theirs.Identity().Type
	typ, body := app.body(1)
	key := smp.OutgoingRoutingKey(own, other, 0x1234abcd_00_000001, 0x000001_01_00000000)
	if err := client.Send(ctx, own.Outbox(other), key, typ, body, func(err error) { stored <- err }); err != nil {
		t.Fatal(err)
	}
	if err := <-stored; err != nil {
		t.Fatal(err)
	}
}

// checkDelivered checks that the message of waitingMessage is delivered by the service of new-node, and that the
// service of mine is refused in the state folder.
func checkDelivered(t *testing.T, mine, theirs *nodetest.Node) {
	t.Helper()
	former := recoveryServer(t, mine, "state")
	former.start()
	if err := <-former.exited; err == nil || !strings.Contains(former.log(), "it belongs to accounting-authority 1234abcd, root key ") {
		t.Errorf("the service of the former node: %v\n%s", err, former.log())
	}
	d, err := node.Open(filepath.Join(filepath.Dir(mine.Path()), "new-node"))
	if err != nil {
		t.Fatal(err)
	}
	next, their := recoveryServer(t, &nodetest.Node{Dir: d}, "state"), recoveryServer(t, theirs, "their-state")
	for _, s := range []*server{next, their} {
		s.start()
		defer s.kill()
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	app := newApplication(their, next)
	client, err := app.dial(ctx)
	if err != nil {
		t.Fatalf("%v\n%s", err, their.log())
	}
	defer client.Close()
	sub, err := client.Subscribe(ctx, "/queue/"+theirs.Identity().Type.Inbox(), 1, local.AckIndividual)
	if err != nil {
		t.Fatal(err)
	}
	m, err := sub.Next(ctx)
	if err != nil {
		t.Fatalf("%v\n%s\n%s", err, next.log(), their.log())
	}
	if app.take(m); app.got[1] != 1 || len(app.damaged) > 0 {
		t.Errorf("delivered %s, want message 1", m.Body)
	}
}

// recoveryNode makes a node whose root key is in its directory, and the files with passphrases.
func recoveryNode(t *testing.T, dir, name string, kind nodetype.Type) *nodetest.Node {
	t.Helper()
	for file, text := range map[string]string{"pass": recoveryPass, "new-pass": "paper clip under the third stone"} {
		if err := os.WriteFile(filepath.Join(dir, file), []byte(text+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	pem, err := pki.EncodeEncryptedKey(key, []byte(recoveryPass))
	if err != nil {
		t.Fatal(err)
	}
	n := nodetest.NewWithKey(t, filepath.Join(dir, name), kind, freeAddress(t), key)
	if err := node.WriteKeyFile(n.DefaultKeyFile(), pem, func([]byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	return n
}

// successor makes new-node.zip, the info-bundle of the node with which the owner of theirs goes on, and peercert.crt, the
// certificate that it issues to the node mine.
func successor(t *testing.T, mine, theirs *nodetest.Node) {
	t.Helper()
	dir := filepath.Dir(mine.Path())
	next := recoveryNode(t, dir, "new-node", theirs.Identity().Type)
	ctx := t.Context()
	if err := next.CreateBundle(ctx, filepath.Join(dir, "new-node.zip"), next.Key); err != nil {
		t.Fatal(err)
	}
	cert, err := os.ReadFile(next.Sign(t, mine.Bundle(t)).CertFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "peercert.crt"), cert, 0o644); err != nil {
		t.Fatal(err)
	}
}

// unregistered makes the peer one that was only signed.
func unregistered(t *testing.T, mine, theirs *nodetest.Node) {
	t.Helper()
	if err := os.Remove(filepath.Join(mine.Path(), "peers", theirs.Identity().ID, "sub-ca.crt")); err != nil {
		t.Fatal(err)
	}
}

// copiedKey makes a copy of the key on another stick, and shares of it.
func copiedKey(t *testing.T, mine, _ *nodetest.Node) {
	t.Helper()
	dir := filepath.Dir(mine.Path())
	if err := os.Mkdir(filepath.Join(dir, "other-stick"), 0o700); err != nil {
		t.Fatal(err)
	}
	key, err := os.ReadFile(mine.DefaultKeyFile())
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "other-stick", "root-ca.key"), key, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	split := exec.Command(program(t), "-C", mine.Path(), "key", "split", "--shares", "5", "--threshold", "3", "--text", "--out", filepath.Join(dir, "pages"), "--passphrase-file", filepath.Join(dir, "pass"))
	if out, err := split.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

var indented = regexp.MustCompile(`(?m)^    (\S.*)$`)

// recoveryScript returns the commands of a section of a page, with the IDs of nodes and the folders of the test in place
// of those that stand there, and their number.
func recoveryScript(t *testing.T, page, section, dir string, my, their *nodetest.Node) (script string, n int) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page+".md"))
	if err != nil {
		t.Fatal(err)
	}
	for part := range strings.SplitSeq("\n"+string(text), "\n## ") {
		title, body, _ := strings.Cut(part, "\n")
		if title != section && (section != "" || title != "") {
			continue
		}
		const shares = "pages/share-1-of-5.txt pages/share-3-of-5.txt pages/share-5-of-5.txt"
		agent := my
		if !my.Identity().Type.IDDerived() {
			agent = their
		}
		var b strings.Builder
		b.WriteString(recoveryPrelude)
		for _, m := range indented.FindAllStringSubmatch(body, -1) {
			n++
			b.WriteString(strings.NewReplacer(
				"OLD-ID", agent.Identity().ID, "NEW-ID", "$(cat new-node/db/nodeid)", "/media/stick", dir, "/var/lib/peerlink/state", "state",
				// Another machine, with the key; and shares as text, which nobody types.
				"mkdir my-node", "mv my-node before && mkdir my-node && cp -R before/private my-node/private", "/media/other-stick", "other-stick",
				"--out pages", "--out pages --text", "key join", "key join "+shares, "--type", shares,
			).Replace(m[1]) + "\n")
		}
		return b.String(), n
	}
	t.Fatalf("%s.md has no section %q", page, section)
	return "", 0
}
