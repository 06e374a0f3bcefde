package embedded

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// Requeued messages are sorted and have no duplicates, in whatever order they are requeued.
func TestMergeSorted(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		var a, b []uint64
		for range r.IntN(8) {
			a = append(a, r.Uint64N(20))
		}
		for range r.IntN(8) {
			b = append(b, r.Uint64N(20))
		}
		want := slices.Concat(a, b)
		slices.Sort(want)
		want = slices.Compact(want)
		slices.Sort(a)
		slices.Sort(b)
		if got := mergeSorted(slices.Clone(a), slices.Clone(b)); !slices.Equal(got, want) {
			t.Fatalf("%v and %v: got %v, expected %v", a, b, got, want)
		}
	}
}
