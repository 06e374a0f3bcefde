// Package pendingconns keeps the accepted connections of strangers, whose
// silence must keep nobody else out.
package pendingconns

import (
	"container/list"
	"io"
	"sync"
)

// Set holds the connections that have not shown yet that they are worth this
// node's work. They cost it little memory, so there may be many. When there are as
// many as there may be, the oldest one of the source that has most of them is
// closed for the next: who has something to say says it at once, and is not among
// the oldest for long. The methods of a Set are safe for concurrent use.
type Set[Source comparable] struct {
	max int

	mu       sync.Mutex
	closed   bool
	n        int
	added    uint64                // how many there have been
	bySource map[Source]*list.List // of *Conn, the oldest first
}

// Conn is a connection in a Set.
type Conn[Source comparable] struct {
	of      *Set[Source]
	source  Source
	conn    io.Closer
	number  uint64        // the older, the smaller
	element *list.Element // nil once it is not in the Set any more
}

// New makes a Set that holds up to max connections.
func New[Source comparable](max int) *Set[Source] {
	return &Set[Source]{max: max, bySource: make(map[Source]*list.List)}
}

// Add takes a connection into the Set, until its Remove is called. conn is what is
// closed when it has to make room; its Close must not block, nor call methods of
// the Set.
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

// Evict closes an eighth of the connections, one at least, and reports whether there
// was any: the process has no file descriptor left. What is closed is more than the
// next connection needs, because others may take a descriptor before it.
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

// closeOldest closes the oldest connection of a source that has most of them, and
// the oldest of these where several sources have as many.
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

// Remove takes the connection out of the Set. It reports false if the connection
// was closed because there were too many.
func (c *Conn[Source]) Remove() bool {
	c.of.mu.Lock()
	defer c.of.mu.Unlock()
	if c.element == nil {
		return false
	}
	c.of.drop(c)
	return true
}

// Close closes all connections, and those that are added later.
func (s *Set[Source]) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	for s.n > 0 {
		s.closeOldest()
	}
}
