package sorted

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"testing"
)

// The result has all elements of both slices, in order.
func TestMerge(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	random := func() (list []int) {
		for range r.IntN(8) {
			list = append(list, r.IntN(20))
		}
		slices.Sort(list)
		return list
	}
	for range 1000 {
		a, b := random(), random()
		want := slices.Sorted(slices.Values(slices.Concat(a, b)))
		if got := Merge(slices.Clone(a), slices.Clone(b), cmp.Compare[int]); !slices.Equal(got, want) {
			t.Fatalf("%v and %v: got %v, expected %v", a, b, got, want)
		}
	}
}
