package cli

import (
	"fmt"
	"testing"
)

// An ID that is drawn is in the recommended range, and is never one that is used; if only one is left, it is that one.
// An interrupted init keeps the ID that it has drawn.
func TestDrawID(t *testing.T) {
	used := make(map[string]bool)
	for n := range countRandomIDs {
		used[fmt.Sprintf("%08x", firstRandomID+n)] = true
	}
	if id, err := drawID("", used); err == nil {
		t.Errorf("%s was drawn, and all are used", id)
	}
	delete(used, "10002b5c")
	if id, err := drawID("", used); id != "10002b5c" || err != nil {
		t.Errorf("got %s, %v", id, err)
	}
	if id, err := drawID("1234abcd", used); id != "1234abcd" || err != nil {
		t.Errorf("got %s, %v", id, err)
	}
	seen := make(map[string]bool)
	for range 20 {
		id, err := drawID("", nil)
		if err != nil || len(id) != 8 || id[:4] != "1000" {
			t.Fatalf("got %s, %v", id, err)
		}
		seen[id] = true
	}
	if len(seen) < 15 {
		t.Errorf("only %d different IDs in 20 draws", len(seen))
	}
}
