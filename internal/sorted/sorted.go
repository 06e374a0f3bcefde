// Package sorted merges sorted slices.
package sorted

// Merge returns the elements of two slices that are sorted by compare, sorted. It takes time
// proportional to their length. It may change a beyond its length.
func Merge[E any](a, b []E, compare func(E, E) int) []E {
	if len(a) == 0 || len(b) == 0 || compare(a[len(a)-1], b[0]) <= 0 {
		return append(a, b...)
	}
	list := make([]E, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if compare(a[0], b[0]) <= 0 {
			list, a = append(list, a[0]), a[1:]
		} else {
			list, b = append(list, b[0]), b[1:]
		}
	}
	return append(append(list, a...), b...)
}
