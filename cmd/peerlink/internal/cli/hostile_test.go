package cli

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/pem"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/spf13/pflag"

	"peerlink/admin"
	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/internal/terminal"
	"peerlink/link"
	"peerlink/local"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// hostileText has control sequences that set a terminal's title, change its colours
// and delete a line, characters that reverse the direction of text or are invisible,
// and bytes that are not valid UTF-8.
const hostileText = "\x1b]0;x\a\x1b[2K\u009b31m\u202efdp\u2066\u200b\u2028\x7f\r\x9b31m\u3164 end"

// showsHostile returns the first character of an output that a terminal would
// interpret, hide or reorder, and reports whether there is one.
func showsHostile(out string) (rune, bool) {
	if !utf8.ValidString(out) {
		return utf8.RuneError, true
	}
	for _, r := range out {
		if r != '\n' && r != '\t' && r != ' ' && !unicode.IsPrint(r) || r == '\u3164' {
			return r, true
		}
	}
	return 0, false
}

// No command writes hostile text from a file, a file name, a message, an argument or
// a service's answer to the terminal without making it harmless. A new command is tested too.
func TestNothingHostileReachesTheTerminal(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	d := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	nodetest.Peer(t, aa, d)
	id := aa.Identity().ID
	write := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	name := hostileText
	if runtime.GOOS == "windows" || runtime.GOOS == "darwin" {
		name = "\u202e\u200b" // file names cannot have the other characters there
	}
	named := write(name, hostileText)
	block := write("block.pem", string(pem.EncodeToMemory(&pem.Block{Type: hostileText, Bytes: []byte("x")})))
	bundle := aa.Bundle(t)
	state := hostileStore(t, id)
	address := hostileService(t)
	const old = "2020-01-01\u202e\x1b[31m\n"
	if err := os.WriteFile(filepath.Join(d.Path(), "peers", id, "nodeinfo", "stomp.toml"), []byte("servers = [\""+hostileText+"\"]\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(d.Path(), "db", "drill"), []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	lines := [][]string{
		{hostileText},
		{"--" + hostileText},
		{"init", hostileText},
		{"init", "accounting-authority", "--id", hostileText},
		{"init", "creditors-agent", "--server", hostileText},
		{"-C", hostileText, "peer", "list"},
		{"-C", named, "check"},
		{"bundle", "inspect", named},
		{"bundle", "inspect", hostileText},
		{"bundle", "inspect", block},
		{"peer", "sign", named},
		{"peer", "sign", "--fingerprint", hostileText, bundle},
		{"peer", "sign", "--registry", named, bundle},
		{"peer", "sign", "--registry", bundle, "--registry-key", block, bundle},
		{"peer", "register", block},
		{"peer", "register", named},
		{"peer", "show", id},
		{"peer", "show", id, "--json"},
		{"peer", "show", hostileText},
		{"peer", "list"},
		{"peer", "list", "--json"},
		{"peer", "queues", id, hostileText},
		{"peer", "deactivate", hostileText},
		{"server-cert", "request", filepath.Join(dir, "s.key"), block},
		{"server-cert", "sign", block, filepath.Join(dir, "s.crt")},
		{"verify", "--trusted", block, block},
		{"verify", "--trusted", named, "--at", hostileText, named},
		{"verify", "--trusted", filepath.Join(d.Path(), "root-ca.crt"), "--node-id", hostileText, filepath.Join(d.Path(), "root-ca.crt")},
		{"key", "drill", "--key", block},
		{"key", "drill", named},
		{"key", "join", "--out", filepath.Join(dir, "joined"), block},
		{"request", "new", filepath.Join(dir, "request"), "--csr", block},
		{"request", "new", filepath.Join(dir, "request"), "--peer", named},
		{"request", "file", named},
		{"request", "forget", hostileText},
		{"fulfil", named, filepath.Join(dir, "answer")},
		{"fulfil", write("request.json", `{"format":"`+strings.ReplaceAll(strings.ToValidUTF8(hostileText, ""), "\x1b", `\u001b`)+`"}`), filepath.Join(dir, "answer")},
		{"check"},
		{"check", "--json"},
		{},
		{"message", "check", "--peer", id, "--direction", "in", "--type", hostileText, named},
		{"message", "check", "--peer", id, "--direction", "out", "--type", "ConfigureAccount", named},
		{"send", id, named},
		{"queue", "list", "--state", state},
		{"queue", "show", id, "--state", state},
		{"queue", "show", id, "--state", state, "--json"},
		{"queue", "show", id, "1", "--state", state},
		{"queue", "show", id, "1", "--state", state, "--json"},
		{"queue", "show", hostileText, "--state", state},
		{"queue", "retry", id, hostileText, "--state", state},
		{"queue", "list", "--broker", "amqp://" + hostileText},
		{"links", "--admin", address},
		{"links", "--admin", address, "--json"},
		{"links", "--admin", "unix:/" + hostileText},
		{"log-level", "--admin", address},
		{"log-level", "--admin", address, hostileText},
		{"serve", "--log-level", hostileText},
		{"serve", "--server-cert", block, "--server-key", block, "--state", state},
		{"swpt-server"},
		{"configure_queue", hostileText},
		{"doctor", "--admin", address},
		{"status", "--admin", address},
	}
	for _, args := range append(lines, hostileLines(named, id)...) {
		if len(args) == 0 || args[0] != "-C" && args[0] != "init" {
			args = append([]string{"-C", d.Path()}, args...)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		code, stdout, stderr := runCLIContext(ctx, t, args...)
		cancel()
		for what, out := range map[string]string{"stdout": stdout, "stderr": stderr} {
			if r, yes := showsHostile(out); yes {
				t.Errorf("%q (exit code %d) shows %U on %s: %q", args, code, r, what, out)
			}
		}
	}
}

// hostileLines returns lines of arguments for every command: with hostile text, with the path of a hostile file and
// with the ID of a peer as its arguments, and with the text and the file as the value of each of its flags. The
// commands that end a peering are the last.
func hostileLines(file, peer string) (lines [][]string) {
	var last [][]string
	commands := leaves((&app{}).root())
	for _, name := range slices.Sorted(maps.Keys(commands)) {
		add := func(args ...string) {
			args = append(strings.Fields(name), args...)
			if name == "peer deactivate" || name == "peer remove" {
				last = append(last, args)
			} else {
				lines = append(lines, args)
			}
		}
		if name != "demo" && name != "serve" { // they would run
			add()
		}
		for _, args := range [][]string{{hostileText}, {file}, {peer}, {peer, hostileText}, {peer, file}, {hostileText, file}, {hostileText, file, file}} {
			add(args...)
		}
		commands[name].LocalNonPersistentFlags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() != "bool" {
				add("--"+f.Name, hostileText, peer)
				add("--"+f.Name, file, peer)
			}
		})
	}
	return append(lines, last...)
}

// hostileStore makes a state folder with a message that contains hostile text and is
// set aside.
func hostileStore(t *testing.T, peer string) (state string) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	state = t.TempDir()
	queue := link.DefaultQueuePattern.Name(peer, 0)
	store, err := embedded.Open(storePath(state), embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	if err := store.Bind(ctx, broker.PeerBinding{PeerID: peer, Prefix: "ca", Exchange: "creditors_out", Fanout: true, Queues: []string{queue}}); err != nil {
		t.Fatal(err)
	}
	if err := store.PutAll(ctx, queue, []broker.Outgoing{{Type: "T\u202e\u200b", ContentType: "t\u202e\u200b", Body: []byte(hostileText)}}); err != nil {
		t.Fatal(err)
	}
	c, err := store.Consume(ctx, queue)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m, err := c.Next(ctx, 1)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.DeadLetter(ctx, m[0].Tag, hostileText); err != nil {
		t.Fatal(err)
	}
	return state
}

// hostileService starts a server that answers "peerlink links" and "peerlink
// log-level" with hostile text, and returns its address.
func hostileService(t *testing.T) (address string) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	answer := admin.Links{}
	answer.ID, answer.Type, answer.Problems = hostileText, hostileText, []string{hostileText}
	answer.Peers = []link.PeerStatus{{
		ID: hostileText, Type: hostileText, State: hostileText, LastError: hostileText, LastErrorAt: &now,
		Connections: []link.Connection{{Direction: link.Sending, Remote: hostileText}},
	}}
	server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/links" {
			json.NewEncoder(w).Encode(answer)
		} else {
			w.Write([]byte(hostileText))
		}
	})}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return l.Addr().String()
}

// In a peer's message that is shown on a terminal, hostile characters are escaped so
// that its JSON has the same values.
func TestTailedMessage(t *testing.T) {
	const body = "{\"note\":\"\u202e\u009b\x7f\u200b\"}"
	for _, asJSON := range []bool{false, true} {
		var out bytes.Buffer
		if err := printMessage(bufio.NewWriter(terminal.NewWriter(&out)), local.Message{Type: "X", Body: []byte(body)}, asJSON); err != nil {
			t.Fatal(err)
		}
		if r, yes := showsHostile(out.String()); yes {
			t.Errorf("the output has %U: %q", r, out.String())
		}
		var got struct {
			Note string
			Body struct{ Note string }
		}
		if err := json.Unmarshal(out.Bytes(), &got); err != nil || got.Note+got.Body.Note != "\u202e\u009b\x7f\u200b" {
			t.Errorf("%q: %v", out.String(), err)
		}
	}
}
