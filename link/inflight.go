package link

// inFlight records the messages that have been handed on, to a connection or to a
// broker, and are not confirmed yet: one item for each message. Items are numbered from
// 1, and confirmed in order. The zero value is empty.
type inFlight[T any] struct {
	items     []T    // not confirmed, in order
	confirmed uint64 // the number of the last item confirmed
}

// add records the next item.
func (f *inFlight[T]) add(item T) { f.items = append(f.items, item) }

// removeLast removes the last item, which has not been handed on after all.
func (f *inFlight[T]) removeLast() {
	if n := len(f.items); n > 0 {
		f.items = f.items[:n-1]
	}
}

// get returns item number n. ok is false if it is confirmed, or does not exist.
func (f *inFlight[T]) get(n uint64) (item T, ok bool) {
	if n <= f.confirmed || n > f.last() {
		return item, false
	}
	return f.items[n-f.confirmed-1], true
}

// last returns the number of the last item.
func (f *inFlight[T]) last() uint64 { return f.confirmed + uint64(len(f.items)) }

// confirm removes the items up to number n, and returns them. It returns nil if item n is
// confirmed already, or does not exist.
func (f *inFlight[T]) confirm(n uint64) []T {
	if _, ok := f.get(n); !ok {
		return nil
	}
	count := n - f.confirmed
	done := f.items[:count:count]
	f.items = f.items[count:]
	f.confirmed = n
	return done
}
