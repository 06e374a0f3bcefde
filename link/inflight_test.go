package link

import (
	"slices"
	"testing"
)

// Items are confirmed in order and once, by their numbers on the connection, and a number
// that is confirmed already or was never used confirms nothing.
func TestInFlight(t *testing.T) {
	t.Parallel()
	var f inFlight[string]
	for _, item := range []string{"one", "two", "three", "four"} {
		f.add(item)
	}
	for _, step := range []struct {
		n    uint64
		want []string
	}{
		{0, nil},
		{5, nil},
		{2, []string{"one", "two"}},
		{2, nil},
		{1, nil},
		{3, []string{"three"}},
		{1 << 63, nil},
	} {
		if got := f.confirm(step.n); !slices.Equal(got, step.want) {
			t.Errorf("confirm %d: %q, want %q", step.n, got, step.want)
		}
	}
	if got, ok := f.get(4); got != "four" || !ok {
		t.Errorf("item 4: %q, %v", got, ok)
	}
	for _, n := range []uint64{0, 3, 5} {
		if got, ok := f.get(n); ok {
			t.Errorf("item %d: %q", n, got)
		}
	}
	f.removeLast()
	f.removeLast() // nothing is left to be removed
	f.add("instead")
	if got := f.confirm(4); !slices.Equal(got, []string{"instead"}) || f.last() != 4 {
		t.Errorf("item 4 is %q, the last one is %d", got, f.last())
	}
}
