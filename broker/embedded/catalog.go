package embedded

import (
	"database/sql/driver"

	"peerlink/internal/topic"
)

// catalog is a copy of the tables queues and bindings, without the message counts.
type catalog struct {
	queueIDs   map[string]int64    // by name
	queueNames map[int64]string    // by ID
	bindings   map[string]binding  // by peer ID
	routes     topic.Router[int64] // of queue IDs, built from bindings when needed; nil if outdated
}

// binding is a binding to a queue, whose ID is the target.
type binding = topic.Binding[int64]

// cachedCatalog returns the catalog, from the cache or from the file.
func (w *writeConn) cachedCatalog() (*catalog, error) {
	if w.catalog != nil {
		return w.catalog, nil
	}
	c := &catalog{
		queueIDs:   make(map[string]int64),
		queueNames: make(map[int64]string),
		bindings:   make(map[string]binding),
	}
	if err := w.allQueues.query(func(cols []driver.Value) bool {
		c.addQueue(number(cols[0]), text(cols[1]))
		return true
	}); err != nil {
		return nil, err
	}
	if err := w.allBindings.query(func(cols []driver.Value) bool {
		c.bindings[text(cols[0])] = binding{
			Exchange: text(cols[1]),
			Key:      text(cols[2]),
			Fanout:   number(cols[3]) != 0,
			Target:   number(cols[4]),
		}
		return true
	}); err != nil {
		return nil, err
	}
	w.catalog = c
	return c, nil
}

func (c *catalog) addQueue(id int64, name string) {
	c.queueIDs[name] = id
	c.queueNames[id] = name
}

// setBinding sets the binding of a peer, or removes it if b is nil.
func (c *catalog) setBinding(peer string, b *binding) {
	if b == nil {
		delete(c.bindings, peer)
	} else {
		c.bindings[peer] = *b
	}
	c.routes = nil
}

// route returns the IDs of the queues that a message is routed to.
func (c *catalog) route(exchange, routingKey string) []int64 {
	if c.routes == nil {
		c.routes = make(topic.Router[int64])
		for _, b := range c.bindings {
			c.routes.Bind(b)
		}
	}
	return c.routes.Route(exchange, routingKey)
}
