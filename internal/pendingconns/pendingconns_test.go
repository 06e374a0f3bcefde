package pendingconns

import "testing"

type closer struct{ closed int }

func (c *closer) Close() error {
	c.closed++
	return nil
}

// In a full Set, the source with the most connections loses its oldest; among several such
// sources, the oldest connection of all is closed. A source with few connections keeps
// them, whatever other sources do.
func TestOldestOfLargestSourceGoes(t *testing.T) {
	s := New[string](4)
	var few, flood closer
	kept := s.Add("few", &few)
	for range 100 {
		s.Add("flood", &flood)
	}
	if few.closed != 0 || flood.closed != 97 {
		t.Errorf("%d of the source with one connection were closed, %d of the one with a hundred", few.closed, flood.closed)
	}
	if !kept.Remove() || kept.Remove() {
		t.Error("Remove: got false for an open connection, or true for a removed one")
	}

	s = New[string](2)
	var conns [3]closer
	first := s.Add("a", &conns[0])
	s.Add("b", &conns[1])
	s.Add("c", &conns[2])
	if conns[0].closed != 1 || conns[1].closed != 0 || first.Remove() {
		t.Errorf("closed %v, expected the oldest", conns)
	}
	s.Evict()
	if conns[1].closed != 1 || conns[2].closed != 0 {
		t.Errorf("after Evict closed %v, expected the second oldest", conns)
	}
	s.Close()
	var late closer
	s.Add("d", &late)
	s.Evict() // has no connection to close
	if conns[2].closed != 1 || late.closed != 1 || s.n != 0 || len(s.bySource) != 0 {
		t.Errorf("after Close closed %v and %v, left %+v", conns, late, s)
	}
}
