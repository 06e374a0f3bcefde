// Package topic routes messages as AMQP's topic and fanout exchanges do, for binding keys that
// describe a subnet of IDs.
package topic

import (
	"cmp"
	"errors"
	"slices"
	"strings"
)

// CheckKey checks a binding key of a topic exchange: words separated by dots, of
// which the last may be "#", for any number of words, including none. A peer's subnet
// needs no more (section "RabbitMQ objects of the reference" of the messages specification).
// AMQP's other wildcards, a "#" before the end and "*" for exactly one word, are refused rather
// than treated as literal words.
func CheckKey(key string) error {
	for i, n := 0, strings.Count(key, "."); i <= n; i++ {
		word, rest, _ := strings.Cut(key, ".")
		switch {
		case word == "*":
			return errors.New("binding key with a \"*\": only \"#\" at the end is possible")
		case word == "#" && i < n:
			return errors.New("binding key with a \"#\" before its end")
		}
		key = rest
	}
	return nil
}

// Binding connects an exchange to a target. A fanout binding ignores routing keys, and has no
// Key.
type Binding[T any] struct {
	Exchange string
	Key      string
	Fanout   bool
	Target   T
}

// Router maps exchanges to their bindings. Routing takes one map lookup for each word of
// the routing key, independently of the number of bindings.
type Router[T cmp.Ordered] map[string]*exchange[T]

// exchange has the targets of an exchange's bindings.
type exchange[T cmp.Ordered] struct {
	fanout []T            // bound without a key
	exact  map[string][]T // by binding key, of keys that do not end with "#"
	prefix map[string][]T // by binding key without the final ".#"
	all    []T            // binding key "#"
}

// Bind adds a binding, whose key must be valid.
func (r Router[T]) Bind(b Binding[T]) {
	e := r[b.Exchange]
	if e == nil {
		e = &exchange[T]{exact: make(map[string][]T), prefix: make(map[string][]T)}
		r[b.Exchange] = e
	}
	switch prefix, ok := strings.CutSuffix(b.Key, ".#"); {
	case b.Fanout:
		e.fanout = append(e.fanout, b.Target)
	case b.Key == "#":
		e.all = append(e.all, b.Target)
	case ok:
		e.prefix[prefix] = append(e.prefix[prefix], b.Target)
	default:
		e.exact[b.Key] = append(e.exact[b.Key], b.Target)
	}
}

// Route returns the targets that a message is routed to, sorted, without duplicates.
func (r Router[T]) Route(name, key string) []T {
	e := r[name]
	if e == nil {
		return nil
	}
	targets := slices.Concat(e.fanout, e.all, e.exact[key])
	if key != "" { // an empty routing key has no words, not even an empty one
		targets = append(targets, e.prefix[key]...)
	}
	for i := range len(key) {
		if key[i] == '.' {
			targets = append(targets, e.prefix[key[:i]]...)
		}
	}
	slices.Sort(targets)
	return slices.Compact(targets)
}
