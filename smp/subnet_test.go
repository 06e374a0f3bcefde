package smp

import (
	"math"
	"strings"
	"testing"

	"peerlink/node/nodetype"
)

// Invariant: String returns what ParseSubnet accepts, in lower case, and ParseSubnet
// accepts only up to 16 hexadecimal digits.
func TestParseSubnet(t *testing.T) {
	for _, c := range []struct {
		digits      string
		value, mask uint64
		bits        int
	}{
		{"", 0, 0, 0},
		{"0", 0, 0xf << 60, 4},
		{"000001", 1 << 40, 0xffffff << 40, 24},
		{"1234abcd", 0x1234abcd << 32, 0xffffffff << 32, 32},
		{"1234ABCD00", 0x1234abcd << 32, 0xffffffffff << 24, 40},
		{"f", 0xf << 60, 0xf << 60, 4},
		{"0000000000000000", 0, math.MaxUint64, 64},
		{"ffffffffffffffff", math.MaxUint64, math.MaxUint64, 64},
	} {
		s, err := ParseSubnet(c.digits)
		if err != nil || s != (Subnet{c.value, c.mask}) || s.Bits() != c.bits {
			t.Errorf("ParseSubnet(%q) is %016x/%016x, %d bits, %v", c.digits, s.Value, s.Mask, s.Bits(), err)
		}
		if got, want := s.String(), strings.ToLower(c.digits); got != want {
			t.Errorf("ParseSubnet(%q) is written as %q", c.digits, got)
		}
	}
	for _, digits := range []string{"00000000000000000", "g", "0x1", "-1", "+1", " 1", "1\n", "1_0", "é", "٣"} {
		if s, err := ParseSubnet(digits); err == nil {
			t.Errorf("ParseSubnet(%q) is %v, expected an error", digits, s)
		}
	}
}

// Invariant: an ID belongs to a subnet if its bit pattern begins with the
// subnet's digits, negative IDs included.
func TestSubnetContains(t *testing.T) {
	for _, c := range []struct {
		digits   string
		id       int64
		contains bool
	}{
		{"", 0, true},
		{"", math.MinInt64, true},
		{"", math.MaxInt64, true},
		{"000001", 1 << 40, true},
		{"000001", 2<<40 - 1, true},
		{"000001", 2 << 40, false},
		{"000001", 1<<40 - 1, false},
		{"000001", 1<<40 | math.MinInt64, false},
		{"800001", 1<<40 | math.MinInt64, true},
		{"ffffff", -1, true},
		{"ffffff", -1 << 40, true},
		{"ffffff", -1<<40 - 1, false},
		{"0000000000000000", 0, true},
		{"0000000000000000", 1, false},
		{"0000000000000000", math.MinInt64, false},
		{"ffffffffffffffff", -1, true},
	} {
		if got := mustParseSubnet(t, c.digits).Contains(c.id); got != c.contains {
			t.Errorf("%q contains %d: %v", c.digits, c.id, got)
		}
	}
	for _, id := range []int64{0, 1, -1, math.MinInt64, math.MaxInt64} {
		if s := exactly(id); !s.Contains(id) || s.Contains(id^1) || s.Contains(id^math.MinInt64) || s.Bits() != 64 {
			t.Errorf("Exactly(%d) is %v", id, s)
		}
	}
}

// Invariant: a binding key has the subnet's whole bytes; there is none for half a byte,
// because a word of a topic cannot be matched partially.
func TestBindingKey(t *testing.T) {
	for digits, want := range map[string]string{
		"":                 "#",
		"0a":               "0a.#",
		"000001":           "00.00.01.#",
		"1234ABCD":         "12.34.ab.cd.#",
		"1234abcd00":       "12.34.ab.cd.00.#",
		"00000000000000":   "00.00.00.00.00.00.00.#",
		"0000000000000000": "00.00.00.00.00.00.00.00",
		"ffffffffffffffff": "ff.ff.ff.ff.ff.ff.ff.ff",
	} {
		if got, err := mustParseSubnet(t, digits).BindingKey(); got != want || err != nil {
			t.Errorf("binding key of %q is %q, %v, expected %q", digits, got, err, want)
		}
	}
	for _, s := range []Subnet{mustParseSubnet(t, "a"), mustParseSubnet(t, "12345"), {Mask: 0xff}, {Value: 1}} {
		if key, err := s.BindingKey(); err == nil {
			t.Errorf("binding key of %v is %q, expected an error", s, key)
		}
	}
}

// Invariant: the binding key of a subnet matches the routing keys of exactly the
// IDs in the subnet.
func TestBindingKeyMatchesRoutingKey(t *testing.T) {
	subnets := []string{"", "00", "000001", "1234abcd", "80", "ffffff", "0000000000000000"}
	ids := []int64{0, 1, -1, 1 << 40, 1<<40 + 7, 2 << 40, 0x1234abcd00000001, math.MinInt64, math.MaxInt64}
	for _, digits := range subnets {
		s := mustParseSubnet(t, digits)
		binding, err := s.BindingKey()
		if err != nil {
			t.Fatal(err)
		}
		for _, id := range ids {
			key := OutgoingRoutingKey(nodetype.AccountingAuthority, nodetype.CreditorsAgent, 99, id)
			prefix, open := strings.CutSuffix(binding, "#")
			matches := key == binding || open && strings.HasPrefix(key, prefix)
			if matches != s.Contains(id) {
				t.Errorf("binding %q, key %q of %d: match is %v", binding, key, id, matches)
			}
		}
	}
}

// Invariant: applications route by the creditor to creditors agents and by the debtor
// otherwise; for a debtors agent, and for nodes that cannot be peers, the key is empty.
func TestOutgoingRoutingKey(t *testing.T) {
	const aa, ca, da = nodetype.AccountingAuthority, nodetype.CreditorsAgent, nodetype.DebtorsAgent
	const debtor, creditor = 0x1234abcd00000001, -2
	const byDebtor, byCreditor = "12.34.ab.cd.00.00.00.01", "ff.ff.ff.ff.ff.ff.ff.fe"
	for _, c := range []struct {
		owner, peer nodetype.Type
		want        string
	}{
		{aa, ca, byCreditor}, {aa, da, byDebtor}, {ca, aa, byDebtor}, {da, aa, ""},
		{aa, aa, ""}, {ca, da, ""}, {0, aa, ""}, {aa, 0, ""},
	} {
		if got := OutgoingRoutingKey(c.owner, c.peer, debtor, creditor); got != c.want {
			t.Errorf("%v to %v: %q, expected %q", c.owner, c.peer, got, c.want)
		}
	}
}

// Invariant: the routing keys in the specification's examples.
func TestRoutingKey(t *testing.T) {
	for _, c := range []struct {
		ids  []int64
		want string
	}{
		{[]int64{123}, "1.1.1.1.1.1.0.0.0.0.0.1.0.0.0.0.0.1.1.0.0.0.1.1"},
		{[]int64{123, 456}, "0.0.0.0.1.0.0.0.0.1.0.0.0.1.0.0.0.0.1.1.0.1.0.0"},
	} {
		if got := RoutingKey(c.ids...); got != c.want {
			t.Errorf("RoutingKey(%v) is %q, expected %q", c.ids, got, c.want)
		}
	}
}

// Invariant: move changes only the leading bits, for any top bit, and moving the ID back
// restores it.
func TestSubnetMove(t *testing.T) {
	for _, c := range []struct {
		from, to string
		id, want int64
	}{
		{"000008", "000001", 0x0000080000000007, 0x0000010000000007},
		{"000008", "800001", 0x0000080000000007, math.MinInt64 | 0x0000010000000007},
		{"ffffff", "000001", -1, 0x000001ffffffffff},
		{"ffffff", "7fffff", -1, math.MaxInt64},
		{"7fffff", "ffffff", math.MaxInt64, -1},
		{"", "", math.MinInt64, math.MinInt64},
		{"8000000000000000", "0000000000000000", math.MinInt64, 0},
	} {
		from, to := mustParseSubnet(t, c.from), mustParseSubnet(t, c.to)
		moved := from.translate(c.id, to)
		if moved != c.want || !to.Contains(moved) {
			t.Errorf("%d from %q to %q is %d, expected %d", c.id, c.from, c.to, moved, c.want)
		}
		if back := to.translate(moved, from); back != c.id {
			t.Errorf("%d came back from %q to %q as %d", c.id, c.to, c.from, back)
		}
	}
}
