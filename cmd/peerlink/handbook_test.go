package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// servicePrelude has functions for scripts that start services, which end with the script.
const servicePrelude = `set -e
trap 'kill $(cat pids); wait' EXIT
try() {
	n=0
	until "$@" >try.log 2>&1; do
		n=$((n+1))
		[ $n -lt 300 ] || { cat try.log ./*.log; exit 1; }
		sleep 0.1
	done
}
start() { # LOG ARGS...
	log=$1
	shift
	command peerlink "$@" 2>$log &
	echo $! >>pids
	try grep msg=serving $log
}
`

// walkPrelude does what a reader of docs/firstnode.md and docs/secondpeer.md, and the owners of the two other nodes, do beside the
// commands that stand there: they type passphrases and fingerprints, run services in other terminals, and wait.
const walkPrelude = servicePrelude + `add() { # NODE WHAT BUNDLE
	command peerlink -C $1 peer add $2 --follow-local --passphrase-file pass --fingerprint "$(command peerlink bundle inspect --json $3 | grep -o 'sha256:[0-9a-f]*')"
}
peerlink() {
	case "$*" in
	*' init '*) command peerlink "$@" --key-type p256 --passphrase-file pass;;
	*' serve --check '*) command peerlink "$@";;
	*' serve '*) start my.log "$@" --publish $MY_PUBLISH --admin $MY_ADMIN;;
	*' peer add http'*) add $2 $5 bank-bundle.zip;;
	*' peer add '*.zip) add $2 $5 $5;;
	*) command peerlink "$@";;
	esac
}
bank() { # NAME ID ADDRESS PUBLISH
	peerlink -C $1 init accounting-authority --id $2 --server $3
	start $1.log -C $1 serve --listen $3 --state $1.state --admin none --publish $4
}
bank bank 1234abcd $BANK $BANK_PUBLISH
bank second-bank 5678abcd $SECOND none
`

// Every command in the pages about the first node and about adding peers works as it stands there, in this order: nodes of all types are
// made, one serves, becomes the peer of two others by URL and with files, and messages can pass.
func TestFirstNodePages(t *testing.T) {
	t.Parallel()
	dir := pageDir(t)
	my, bank, mine := freeAddress(t), freeAddress(t), freeAddress(t)
	out := runPage(t, dir, walkPrelude+walkScript(t, my, bank), "MY_ADMIN="+freeAddress(t),
		"MY_PUBLISH="+mine, "BANK_PUBLISH="+bank, "BANK="+freeAddress(t), "SECOND="+freeAddress(t))
	for _, want := range []string{"listen ", "http://", "Harbour Bank", `"routing_key"`} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in the output:\n%s", want, out)
		}
	}
}

// pageDir makes a folder in which the commands of a page run, with the file pass. Its name is short, because sockets are in it.
func pageDir(t *testing.T) (dir string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "page")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.WriteFile(filepath.Join(dir, "pass"), []byte(recoveryPass+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return dir
}

// runPage runs a script that begins with servicePrelude, and returns what it prints.
func runPage(t *testing.T, dir, script string, env ...string) string {
	t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("skipped, the commands of a page of the handbook: there is no sh")
	}
	path := build(t) + string(os.PathListSeparator) + os.Getenv("PATH")
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Minute)
	defer cancel()
	run := exec.CommandContext(ctx, shell, "-c", script)
	run.Dir, run.WaitDelay = dir, 10*time.Second
	run.Cancel = func() error { return run.Process.Signal(os.Interrupt) } // the services end too
	run.Env = append(os.Environ(), "NO_COLOR=1", "PEERLINK_DIR=", "XDG_STATE_HOME="+dir, "PEERLINK_LOCAL_LISTEN=none", "PATH="+path)
	run.Env = append(run.Env, env...)
	out, err := run.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return string(out)
}

// walkScript returns the commands of both pages, with what the other owners do between them.
func walkScript(t *testing.T, my, bank string) string {
	t.Helper()
	const numberMade, numberAdded = 9, 10
	made, added := pageCommands(t, "firstnode"), pageCommands(t, "secondpeer")
	if len(made) != numberMade || len(added) != numberAdded {
		t.Fatalf("the pages have %d and %d commands, want %d and %d", len(made), len(added), numberMade, numberAdded)
	}
	added[0] += "\nadd bank http://$MY_PUBLISH/info-bundle.zip my-node-bundle.zip"
	added[2] += "\nadd second-bank my-node-bundle.zip my-node-bundle.zip" +
		"\ncp second-bank/peers/*/peercert.crt from-second-bank.crt" +
		"\ncommand peerlink -C second-bank peer add my-node/peers/5678abcd/peercert.crt"
	added[3] += "\ntry command peerlink -C my-node ping 1234abcd\ntry command peerlink -C my-node ping 5678abcd"
	script := strings.Join(append(made, added...), "\n")
	return strings.NewReplacer("node.example.com:1234", my, "--listen :1234", "--listen "+my, "https://bank.example.com", "http://"+bank).Replace(script)
}

// pageCommands returns the commands of a page in docs.
func pageCommands(t *testing.T, page string) (commands []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", page+".md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range indented.FindAllStringSubmatch(string(text), -1) {
		commands = append(commands, m[1])
	}
	return commands
}
