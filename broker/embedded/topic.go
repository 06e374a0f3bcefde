package embedded

import (
	"fmt"
	"slices"
	"strings"
)

// checkBindingKey checks the binding key of a topic exchange: words joined
// with dots, of which the last may be "#", which stands for any number of
// words, also none. That is all a peer's subnet needs (section "RabbitMQ
// objects of the reference"). AMQP's other wildcards, a "#" elsewhere and "*"
// for exactly one word, are refused rather than taken literally.
func checkBindingKey(key string) error {
	if err := checkText("binding key", key); err != nil {
		return err
	}
	for i, n := 0, strings.Count(key, "."); i <= n; i++ {
		word, rest, _ := strings.Cut(key, ".")
		switch {
		case word == "*":
			return fmt.Errorf("%w: binding key with a \"*\": only \"#\" at the end is possible", ErrInvalid)
		case word == "#" && i < n:
			return fmt.Errorf("%w: binding key with a \"#\" before its end", ErrInvalid)
		}
		key = rest
	}
	return nil
}

// router returns for each exchange which queues take a message. It finds them
// with one look for each word of the routing key, however many peers there are.
type router map[string]*exchange

// exchange has the queues of the bindings, by their IDs in the file.
type exchange struct {
	fanout []int64            // bound without a key
	exact  map[string][]int64 // by binding key without "#"
	prefix map[string][]int64 // by what stands before ".#"
	all    []int64            // bound with "#" alone
}

// bind adds a binding, whose key has been checked.
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

// route returns the queues that take a message: each once, however many of
// its bindings match.
func (r router) route(name, key string) []int64 {
	e := r[name]
	if e == nil {
		return nil
	}
	queues := slices.Concat(e.fanout, e.all, e.exact[key])
	if key != "" { // it has no words, not even an empty one
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
