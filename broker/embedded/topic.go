package embedded

import (
	"fmt"
	"slices"
	"strings"
)

// checkBindingKey checks the binding key of a topic exchange: words separated by dots, of
// which the last may be "#", for any number of words, including none. A peer's subnet
// needs no more (section "RabbitMQ objects of the reference" of the messages specification).
// AMQP's other wildcards, a "#" before the end and "*" for exactly one word, are refused rather
// than treated as literal words.
func checkBindingKey(key string) error {
	if err := checkText("binding key", key); err != nil {
		return err
	}
	for i, n := 0, strings.Count(key, "."); i <= n; i++ {
		word, rest, _ := strings.Cut(key, ".")
		switch {
		case word == "*":
			return fmt.Errorf("%w: binding key with a \"*\": only \"#\" at the end is possible", errInvalid)
		case word == "#" && i < n:
			return fmt.Errorf("%w: binding key with a \"#\" before its end", errInvalid)
		}
		key = rest
	}
	return nil
}

// router maps exchanges to their bindings. Routing takes one map lookup for each word of
// the routing key, independently of the number of peers.
type router map[string]*exchange

// exchange has the queue IDs of an exchange's bindings.
type exchange struct {
	fanout []int64            // bound without a key
	exact  map[string][]int64 // by binding key, of keys that do not end with "#"
	prefix map[string][]int64 // by binding key without the final ".#"
	all    []int64            // binding key "#"
}

// bind adds a binding, whose key must be valid.
func (r router) bind(b binding) {
	e := r[b.exchange]
	if e == nil {
		e = &exchange{exact: make(map[string][]int64), prefix: make(map[string][]int64)}
		r[b.exchange] = e
	}
	switch prefix, ok := strings.CutSuffix(b.key, ".#"); {
	case b.fanout:
		e.fanout = append(e.fanout, b.queue)
	case b.key == "#":
		e.all = append(e.all, b.queue)
	case ok:
		e.prefix[prefix] = append(e.prefix[prefix], b.queue)
	default:
		e.exact[b.key] = append(e.exact[b.key], b.queue)
	}
}

// route returns the IDs of the queues that a message is routed to, without duplicates.
func (r router) route(name, key string) []int64 {
	e := r[name]
	if e == nil {
		return nil
	}
	queues := slices.Concat(e.fanout, e.all, e.exact[key])
	if key != "" { // an empty routing key has no words, not even an empty one
		queues = append(queues, e.prefix[key]...)
	}
	for i := range len(key) {
		if key[i] == '.' {
			queues = append(queues, e.prefix[key[:i]]...)
		}
	}
	slices.Sort(queues)
	return slices.Compact(queues)
}
