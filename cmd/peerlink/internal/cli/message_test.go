package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// messageVector is a message and the reference's result for it, between two nodes
// with the subnets of [vectorNodes].
type messageVector struct {
	Context struct {
		OwnerType string `json:"owner_type"`
		PeerType  string `json:"peer_type"`
	}
	Direction   string
	Label       string
	Type        string
	ContentType string `json:"content_type"`
	Body        string
	Result      *struct {
		Body       map[string]any
		Headers    map[string]any
		RoutingKey string `json:"routing_key"`
	}
}

// vectorNodes makes the nodes of the vectors: an accounting authority and its peers,
// a creditors agent and a debtors agent. It maps the short forms of the owner's and
// the peer's types to the path of the owner's directory and the peer's ID.
func vectorNodes(t *testing.T) map[[2]string][2]string {
	t.Helper()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	da := nodetest.New(t, nodetype.DebtorsAgent, "da.example.com:1234")
	if err := os.WriteFile(filepath.Join(ca.Path(), "creditors-subnet.txt"), []byte("000008\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	nodetest.Peer(t, aa, ca)
	nodetest.Peer(t, aa, da)
	return map[[2]string][2]string{
		{"AA", "CA"}: {aa.Path(), ca.Identity().ID},
		{"AA", "DA"}: {aa.Path(), da.Identity().ID},
		{"CA", "AA"}: {ca.Path(), aa.Identity().ID},
		{"DA", "AA"}: {da.Path(), aa.Identity().ID},
	}
}

// runCommand runs peerlink in this process.
func runCommand(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	a := &app{stdin: os.Stdin, stdout: &out, stderr: &errs}
	code = a.run(context.Background(), args)
	a.closeLogs()
	return code, out.String(), errs.String()
}

// "message check", which needs only a node's directory, prints for each message the
// same result as the reference implementation: the fields of the body, the headers
// and the routing key, with all digits of each number. If the reference rejects the
// message, the exit code is 1 and there is no result.
func TestMessageCheckVectors(t *testing.T) {
	data, err := os.ReadFile(filepath.FromSlash("../../../../smp/testdata/smp-messages.json"))
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct{ Messages []messageVector }
	decode(t, data, &vectors)
	nodes := vectorNodes(t)
	file := filepath.Join(t.TempDir(), "message.json")
	for i, v := range vectors.Messages {
		node, ok := nodes[[2]string{v.Context.OwnerType, v.Context.PeerType}]
		if !ok {
			t.Fatalf("case %d: no such nodes: %+v", i, v.Context)
		}
		if err := os.WriteFile(file, []byte(v.Body), 0o600); err != nil {
			t.Fatal(err)
		}
		code, stdout, stderr := runCommand("-C", node[0], "message", "check", "--peer", node[1],
			"--direction", v.Direction, "--type", v.Type, "--content-type", v.ContentType, file)
		name := strings.Join([]string{v.Context.OwnerType, v.Context.PeerType, v.Direction, v.Type, v.Label}, " ")
		if v.Result == nil {
			if code != exitFailed || stdout != "" || !strings.HasPrefix(stderr, "Error: ") {
				t.Errorf("case %d, %s: exit code %d, output %q, %q; expected an error", i, name, code, stdout, stderr)
			}
			continue
		}
		if code != exitDone || stderr != "" {
			t.Errorf("case %d, %s: exit code %d, %s", i, name, code, stderr)
			continue
		}
		var got struct {
			Type        string
			ContentType string `json:"content_type"`
			Body        map[string]any
			Headers     map[string]any
			RoutingKey  string `json:"routing_key"`
			Note        string
		}
		decode(t, []byte(stdout), &got)
		if got.Type != v.Type || got.ContentType != v.ContentType || got.Note != "" {
			t.Errorf("case %d, %s: type %q, content type %q, note %q", i, name, got.Type, got.ContentType, got.Note)
		}
		// The formats of timestamps are checked by the tests of package smp.
		for field, want := range v.Result.Body {
			if _, isText := want.(string); !isText && got.Body[field] != want {
				t.Errorf("case %d, %s: %s is %v, expected %v", i, name, field, got.Body[field], want)
			}
		}
		if len(got.Body) != len(v.Result.Body) {
			t.Errorf("case %d, %s: %d fields, expected %d", i, name, len(got.Body), len(v.Result.Body))
		}
		if v.Direction == "out" {
			continue
		}
		if got.RoutingKey != v.Result.RoutingKey {
			t.Errorf("case %d, %s: routing key %q, expected %q", i, name, got.RoutingKey, v.Result.RoutingKey)
		}
		for header, want := range v.Result.Headers {
			if got.Headers[header] != want {
				t.Errorf("case %d, %s: header %s is %v, expected %v", i, name, header, got.Headers[header], want)
			}
		}
		if len(got.Headers) != len(v.Result.Headers) {
			t.Errorf("case %d, %s: headers %v, expected %v", i, name, got.Headers, v.Result.Headers)
		}
	}
}

// decode decodes JSON into v, and keeps numbers as they are written.
func decode(t *testing.T, data []byte, v any) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(data))
	d.UseNumber()
	if err := d.Decode(v); err != nil {
		t.Fatalf("%v in %.200s", err, data)
	}
}
