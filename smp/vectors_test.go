package smp

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// vectors are the results of the Swaptacular reference: one for each combination of a
// view, a direction and a body. They can be used to test any implementation of the
// protocol.
type vectors struct {
	Messages    []vector
	RoutingKeys []struct {
		IDs []int64 `json:"ids"`
		Key string  `json:"key"`
	} `json:"routing_keys"`
}

type vector struct {
	Context struct {
		OwnerType      string    `json:"owner_type"`
		PeerType       string    `json:"peer_type"`
		OwnerCreditors hexSubnet `json:"owner_creditors_subnet"`
		PeerCreditors  hexSubnet `json:"peer_creditors_subnet"`
		PeerDebtors    hexSubnet `json:"peer_debtors_subnet"`
	}
	Direction   string
	Label       string
	Type        string
	ContentType string `json:"content_type"`
	Body        string
	Error       string
	Result      *struct {
		Body       json.RawMessage
		Headers    map[string]any
		RoutingKey string `json:"routing_key"`
	}
}

// hexSubnet is a value and a mask, 16 hexadecimal digits each.
type hexSubnet [2]string

func (h hexSubnet) subnet(t testing.TB) Subnet {
	t.Helper()
	return Subnet{Value: mustParseSubnet(t, h[0]).Value, Mask: mustParseSubnet(t, h[1]).Value}
}

func mustParseSubnet(t testing.TB, digits string) Subnet {
	t.Helper()
	s, err := ParseSubnet(digits)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func readVectors(t testing.TB) vectors {
	t.Helper()
	file, err := os.Open("testdata/smp-messages.json")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	d := json.NewDecoder(file)
	d.UseNumber()
	var v vectors
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v vector) view(t testing.TB) View {
	t.Helper()
	owner, err := nodetype.Parse(v.Context.OwnerType)
	if err != nil {
		t.Fatal(err)
	}
	peer, err := nodetype.Parse(v.Context.PeerType)
	if err != nil {
		t.Fatal(err)
	}
	return View{
		Owner: owner, Peer: peer,
		OwnerCreditors: v.Context.OwnerCreditors.subnet(t),
		PeerCreditors:  v.Context.PeerCreditors.subnet(t),
		PeerDebtors:    v.Context.PeerDebtors.subnet(t),
	}
}

// arrival is later than all timestamps of the test data.
var arrival = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Invariant: every message is accepted, translated and routed, with headers, exactly as by
// the reference, and refused if the reference refuses it.
func TestVectors(t *testing.T) {
	cases := readVectors(t).Messages
	if len(cases) != 804 {
		t.Fatalf("%d cases, expected 804", len(cases))
	}
	for i, c := range cases {
		view := c.view(t)
		var body []byte
		var received Received
		var err error
		switch c.Direction {
		case "out":
			body, err = view.Outgoing(c.Type, c.ContentType, []byte(c.Body))
		case "in":
			received, err = view.Incoming(c.Type, c.ContentType, []byte(c.Body), arrival)
			body = received.Body
		default:
			t.Fatalf("case %d: direction %q", i, c.Direction)
		}
		name := c.Context.OwnerType + "-" + c.Context.PeerType + " " + c.Direction + " " + c.Type + ", " + c.Label
		if c.Result == nil {
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("case %d, %s: error is %v, expected an *Error such as %q", i, name, err, c.Error)
			}
			continue
		}
		if err != nil {
			t.Errorf("case %d, %s: %v", i, name, err)
			continue
		}
		if want, got := normal(t, c.Result.Body), normal(t, body); !maps.Equal(want, got) {
			t.Errorf("case %d, %s: body is\n%v\nexpected\n%v", i, name, got, want)
		}
		if c.Direction == "out" {
			continue
		}
		if got := received.RoutingKey; got != c.Result.RoutingKey {
			t.Errorf("case %d, %s: routing key is %q, expected %q", i, name, got, c.Result.RoutingKey)
		}
		if want, got := typed(t, c.Result.Headers), maps.Collect(received.Headers.All()); !maps.Equal(want, got) {
			t.Errorf("case %d, %s: headers are %v, expected %v", i, name, got, want)
		}
		if received.Type != c.Type {
			t.Errorf("case %d, %s: type is %q", i, name, received.Type)
		}
	}
}

// Invariant: routing keys equal the reference's, bit by bit.
func TestRoutingKeyVectors(t *testing.T) {
	keys := readVectors(t).RoutingKeys
	if len(keys) != 40 {
		t.Fatalf("%d cases, expected 40", len(keys))
	}
	for _, c := range keys {
		if got := RoutingKey(c.IDs...); got != c.Key {
			t.Errorf("RoutingKey(%v) is %q, expected %q", c.IDs, got, c.Key)
		}
	}
}

// normal parses a JSON object so that equal messages become equal maps: numbers are kept
// as literals, so that 5 differs from 5.0 and no digit is lost, and timestamps become
// instants.
func normal(t *testing.T, body []byte) map[string]any {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(body))
	d.UseNumber()
	var object map[string]any
	if err := d.Decode(&object); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	for name, v := range object {
		s, ok := v.(string)
		if !ok || !(name == "ts" || name == "deadline" || strings.HasSuffix(name, "_ts") || strings.HasSuffix(name, "_at")) {
			continue
		}
		instant, err := time.Parse(time.RFC3339Nano, s)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		object[name] = instant.UnixMicro()
	}
	return object
}

// typed converts headers from a vector to their Go types.
func typed(t *testing.T, headers map[string]any) map[string]any {
	t.Helper()
	for name, v := range headers {
		if n, ok := v.(json.Number); ok {
			i, err := n.Int64()
			if err != nil {
				t.Fatal(err)
			}
			headers[name] = i
		}
	}
	return headers
}
