package link

import (
	"container/list"
	"net"
	"net/netip"
	"sync"
)

// pendingConns are the accepted connections that have not sent a complete
// ClientHello yet. They cost this node little memory and no work, so there may
// be thousands. When there are as many as there may be, the oldest one of the
// source that has most of them is closed for the next: a peer sends its
// ClientHello at once, so it is not among the oldest for long.
type pendingConns struct {
	max int

	mu       sync.Mutex
	closed   bool
	n        int
	bySource map[netip.Prefix]*list.List // of *arrival, the oldest first
}

// pendingConn is a connection among the arrivals.
type pendingConn struct {
	of      *pendingConns
	source  netip.Prefix
	conn    net.Conn
	element *list.Element // nil once it is not among them any more
}

func newPendingConns(max int) *pendingConns {
	return &pendingConns{max: max, bySource: make(map[netip.Prefix]*list.List)}
}

// add takes a connection among the arrivals, until its remove is called.
func (a *pendingConns) add(conn net.Conn) *pendingConn {
	v := &pendingConn{of: a, source: sourceOf(conn.RemoteAddr()), conn: conn}
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

// evict closes one connection, if there is any: the process has no file
// descriptor left for another.
func (a *pendingConns) evict() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closeOldest()
}

// closeOldest closes the oldest connection of a source that has most of them.
func (a *pendingConns) closeOldest() {
	var most *list.List
	for _, l := range a.bySource {
		if most == nil || l.Len() > most.Len() {
			most = l
		}
	}
	if most == nil {
		return
	}
	v := most.Front().Value.(*pendingConn)
	a.drop(v)
	v.conn.Close()
}

func (a *pendingConns) drop(v *pendingConn) {
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
func (v *pendingConn) remove() bool {
	v.of.mu.Lock()
	defer v.of.mu.Unlock()
	if v.element == nil {
		return false
	}
	v.of.drop(v)
	return true
}

// close closes all connections, and those that are added later.
func (a *pendingConns) close() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.closed = true
	for a.n > 0 {
		a.closeOldest()
	}
}
