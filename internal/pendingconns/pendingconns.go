// Package pendingconns bounds the accepted connections of unauthenticated clients, so that
// clients that send nothing, or are slow, do not prevent others from connecting.
package pendingconns

import (
	"container/list"
	"io"
	"sync"
)

// Set holds the connections of clients that are not authenticated. They use little memory,
// so there may be many. When the Set is full, the next connection closes the oldest one of
// the source that has the most: a client without bad intent sends its first data immediately,
// and so is not among the oldest for long. The methods of a Set are safe for concurrent use.
type Set[Source comparable] struct {
	max int

	mu       sync.Mutex
	closed   bool
	n        int
	added    uint64                // number of connections added or touched so far
	bySource map[Source]*list.List // of *Conn, oldest first
}

// Conn is a connection in a Set.
type Conn[Source comparable] struct {
	of      *Set[Source]
	source  Source
	conn    io.Closer
	number  uint64        // increases with each connection that is added or touched
	element *list.Element // nil when the connection is not in the Set any more
}

// New returns a Set of up to max connections.
func New[Source comparable](max int) *Set[Source] {
	return &Set[Source]{max: max, bySource: make(map[Source]*list.List)}
}

// Add adds a connection to the Set, until its Remove is called. The Set may close conn in favour
// of a later connection. conn's Close must not block, nor call methods of the Set.
func (s *Set[Source]) Add(source Source, conn io.Closer) *Conn[Source] {
	c := &Conn[Source]{of: s, source: source, conn: conn}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		conn.Close()
		return c
	}
	if s.n >= s.max {
		s.closeOldest()
	}
	l := s.bySource[source]
	if l == nil {
		l = list.New()
		s.bySource[source] = l
	}
	s.added++
	c.number = s.added
	c.element = l.PushBack(c)
	s.n++
	return c
}

// Touch makes the connection the newest one of the Set, if it is still in it.
func (c *Conn[Source]) Touch() {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.element == nil {
		return
	}
	c.of.added++
	c.number = c.of.added
	c.of.bySource[c.source].MoveToBack(c.element)
}

// Evict closes an eighth of the connections, at least one, and reports whether there was
// any. It is called when the process has no file descriptors left. It closes more
// connections than the next one needs, because others may use the descriptors first.
func (s *Set[Source]) Evict() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.n == 0 {
		return false
	}
	for range (s.n + 7) / 8 {
		s.closeOldest()
	}
	return true
}

// closeOldest closes the oldest connection of the source that has the most. If there are
// several such sources, it closes the oldest of their connections.
func (s *Set[Source]) closeOldest() {
	var oldest *Conn[Source]
	most := 0
	for _, l := range s.bySource {
		c := l.Front().Value.(*Conn[Source])
		if l.Len() > most || l.Len() == most && c.number < oldest.number {
			most, oldest = l.Len(), c
		}
	}
	if oldest == nil {
		return
	}
	s.drop(oldest)
	oldest.conn.Close()
}

func (s *Set[Source]) drop(c *Conn[Source]) {
	l := s.bySource[c.source]
	l.Remove(c.element)
	if l.Len() == 0 {
		delete(s.bySource, c.source)
	}
	c.element = nil
	s.n--
}

// Remove removes the connection from the Set. It returns false if the Set has closed the
// connection, or if it was removed before.
func (c *Conn[Source]) Remove() bool {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.element == nil {
		return false
	}
	c.of.drop(c)
	return true
}

// Close closes all connections, including those that are added later.
func (s *Set[Source]) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for s.n > 0 {
		s.closeOldest()
	}
}
