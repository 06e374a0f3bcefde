package link

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// arrivals are the accepted connections that have not sent a complete
// ClientHello yet. They cost this node little memory and no work, so there may
// be thousands. When there are as many as there may be, the oldest one of the
// source that has most of them is closed for the next: a peer sends its
// ClientHello at once, so it is not among the oldest for long.
type arrivals struct {
	max int

	mu       sync.Mutex
	closed   bool
	n        int
	bySource map[netip.Prefix]*list.List // of *arrival, the oldest first
}

// arrival is a connection among the arrivals.
type arrival struct {
	of      *arrivals
	source  netip.Prefix
	conn    net.Conn
	element *list.Element // nil once it is not among them any more
}

func newArrivals(max int) *arrivals {
	return &arrivals{max: max, bySource: make(map[netip.Prefix]*list.List)}
}

// add takes a connection among the arrivals, until its remove is called.
func (a *arrivals) add(conn net.Conn) *arrival {
	v := &arrival{of: a, source: sourceOf(conn.RemoteAddr()), conn: conn}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.closed {
		conn.Close()
		return v
	}
	if a.n >= a.max {
		a.closeOldest()
	}
	l := a.bySource[v.source]
	if l == nil {
		l = list.New()
		a.bySource[v.source] = l
	}
	v.element = l.PushBack(v)
	a.n++
	return v
}

// makeRoom closes one connection, if there is any: the process has no file
// descriptor left for another.
func (a *arrivals) makeRoom() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closeOldest()
}

// closeOldest closes the oldest connection of a source that has most of them.
func (a *arrivals) closeOldest() {
	var most *list.List
	for _, l := range a.bySource {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	if most == nil {
		return
	}
	v := most.Front().Value.(*arrival)
	a.drop(v)
	v.conn.Close()
}

func (a *arrivals) drop(v *arrival) {
	l := a.bySource[v.source]
	l.Remove(v.element)
	if l.Len() == 0 {
		delete(a.bySource, v.source)
	}
	v.element = nil
	a.n--
}

// remove takes the connection from the arrivals. It reports false if the
// connection was closed because there were too many.
func (v *arrival) remove() bool {
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	if v.element == nil {
		return false
	}
	v.of.drop(v)
	return true
}

// close closes all connections, and those that are added later.
func (a *arrivals) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for a.n > 0 {
		a.closeOldest()
	}
}
