package smp

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"testing"

	"peerlink/node/nodetype"
)

// sample is a valid message whose members can be replaced by valid or invalid ones: a map
// of names to JSON literals.
type sample map[string]string

// samples returns a valid message of each type, from the vectors.
func samples(t testing.TB) map[string]sample {
	t.Helper()
	all := map[string]sample{}
	for _, c := range readVectors(t).Messages {
		if c.Label != "valid" || all[c.Type] != nil {
			continue
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal([]byte(c.Body), &members); err != nil {
			t.Fatal(err)
		}
		all[c.Type] = sample{}
		for name, literal := range members {
			all[c.Type][name] = string(literal)
		}
	}
	if len(all) != len(schemas) {
		t.Fatalf("the vectors have valid messages of %d types, expected %d", len(all), len(schemas))
	}
	return all
}

// with returns the sample with some members replaced, given as alternating names and
// literals. An empty literal removes the member.
func (s sample) with(pairs ...string) sample {
	s = maps.Clone(s)
	for pair := range slices.Chunk(pairs, 2) {
		s[pair[0]] = pair[1]
	}
	return s
}

// body returns the sample as JSON, with extra members after the others.
func (s sample) body(extra ...string) []byte {
	var members []string
	for _, name := range slices.Sorted(maps.Keys(s)) {
		if s[name] != "" {
			members = append(members, `"`+name+`": `+s[name])
		}
	}
	return []byte("{" + strings.Join(append(members, extra...), ", ") + "}")
}

// open returns a view without limits on IDs, of the node that sends messages of the given
// type.
func open(typ string) View {
	if IsIn(typ) {
		return View{Owner: nodetype.CreditorsAgent, Peer: nodetype.AccountingAuthority}
	}
	return View{Owner: nodetype.AccountingAuthority, Peer: nodetype.CreditorsAgent}
}

// reversed returns the view of the other node.
func (v View) reversed() View {
	v.Owner, v.Peer = v.Peer, v.Owner
	return v
}

// send passes a message through a view without limits.
func send(typ string, body []byte) ([]byte, error) {
	return open(typ).Outgoing(typ, ContentType, body)
}
