package topic

import (
	"slices"
	"strings"
	"testing"
)

// amqpMatch is AMQP's definition of a topic match: "#" matches any number of words,
// including none.
func amqpMatch(pattern, words []string) bool {
	if len(pattern) == 0 {
		return len(words) == 0
	}
	if pattern[0] == "#" {
		return amqpMatch(pattern[1:], words) || len(words) > 0 && amqpMatch(pattern, words[1:])
	}
	return len(words) > 0 && pattern[0] == words[0] && amqpMatch(pattern[1:], words[1:])
}

// A binding key matches the same routing keys as in AMQP.
func TestRoute(t *testing.T) {
	for _, test := range []struct {
		key     string
		matches []string
		not     []string
	}{
		{"00.00.01.#",
			[]string{"00.00.01", "00.00.01.00", "00.00.01.00.00.00.00.7b"},
			[]string{"", "00", "00.00", "00.00.02", "00.00.012", "00.00.02.01", "00.00.01x.00", "x00.00.01", "00.00.011"}},
		{"#", []string{"", "00", "12.34.ab.cd.00.00.00.01", "."}, nil},
		{"12.34.ab.cd.00.00.00.01",
			[]string{"12.34.ab.cd.00.00.00.01"},
			[]string{"12.34.AB.CD.00.00.00.01", "12.34.ab.cd.00.00.00", "12.34.ab.cd.00.00.00.01.00", "12.34.ab.cd.00.00.00.010"}},
		{"", []string{""}, []string{"00", "."}},
		{".#", []string{".", ".00", "..", "..00"}, []string{"", "00", "00."}},
	} {
		r := make(Router[int64])
		r.Bind(Binding[int64]{Exchange: "to_creditors", Key: test.key, Target: 7})
		for _, key := range test.matches {
			if got := r.Route("to_creditors", key); !slices.Equal(got, []int64{7}) {
				t.Errorf("binding %q does not match %q", test.key, key)
			}
			if got := r.Route("to_debtors", key); len(got) > 0 {
				t.Errorf("binding %q matches %q of another exchange", test.key, key)
			}
		}
		for _, key := range test.not {
			if got := r.Route("to_creditors", key); len(got) > 0 {
				t.Errorf("binding %q matches %q", test.key, key)
			}
		}
	}
}

// Binding keys with wildcards that are not supported are refused.
func TestCheckBindingKey(t *testing.T) {
	for _, key := range []string{"*", "00.*", "*.00", "00.*.#", "#.00", "#.#", "00.#.01.#"} {
		if CheckKey(key) == nil {
			t.Errorf("%q is accepted", key)
		}
	}
	for _, key := range []string{"", "#", "00", "00.#", "12.34.ab.cd.00.00.00.01", "00.00.01.#", "a*.#", "a#"} {
		if err := CheckKey(key); err != nil {
			t.Errorf("%q: %v", key, err)
		}
	}
}

// For any two binding keys and a routing key, Route returns each target exactly if its
// binding matches by AMQP's rules, and once.
func FuzzRoute(f *testing.F) {
	f.Add("00.00.01.#", "#", "00.00.01.00")
	f.Add("00.#", "00.#", "00")
	f.Add("", "a..#", "a..b")
	f.Add("a.#", ".#", ".")
	f.Fuzz(func(t *testing.T, key1, key2, routingKey string) {
		if CheckKey(key1) != nil || CheckKey(key2) != nil {
			return
		}
		words := func(s string) []string {
			if s == "" {
				return nil
			}
			return strings.Split(s, ".")
		}
		var want []int64
		r := make(Router[int64])
		for i, key := range []string{key1, key2} {
			r.Bind(Binding[int64]{Exchange: "x", Key: key, Target: int64(i)})
			r.Bind(Binding[int64]{Exchange: "x", Key: key, Target: int64(i)})
			if amqpMatch(words(key), words(routingKey)) {
				want = append(want, int64(i))
			}
		}
		if got := r.Route("x", routingKey); !slices.Equal(got, want) {
			t.Errorf("bindings %q and %q give %q to %v, want %v", key1, key2, routingKey, got, want)
		}
	})
}
