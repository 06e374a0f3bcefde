package rabbitmq

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxWindowBytes bounds the size of the messages that a consumer holds. RabbitMQ itself
	// bounds only their number.
	maxWindowBytes = 8 << 20
	// minPrefetch is the lowest prefetch count that is set because messages are large.
	minPrefetch = 8
)

// window bounds the size of the messages that a consumer holds. A delivery that would exceed the
// bound is discarded, and so are all later ones. When the held messages are acknowledged, the
// consumer ends, which returns the discarded messages to their positions in the queue, and the
// next consumer has a lower prefetch count. If messages are small again, a consumer ends in the
// same way, so that the next one has a higher prefetch count. RabbitMQ has no other way to change
// the prefetch count that works with all types of queues. consumer.mu guards a window.
type window struct {
	prefetch      int // prefetch count of this consumer
	nextPrefetch  int // if not 0, this consumer is to end, and the next one has this prefetch count
	accepted      int // number of messages accepted since the consumer was opened
	acceptedBytes int // their size
}

// accept reports whether a delivery fits into the window, and counts it if it does. If it does
// not, or if messages are small enough for a higher prefetch count, of at most maxPrefetch, accept
// sets nextPrefetch.
func (w *window) accept(d amqp.Delivery, u *unacked, maxPrefetch int) bool {
	held := len(u.held) + len(u.excluded)
	if w.discards() || held > 0 && u.bytes+bytesOf(d) > maxWindowBytes {
		w.nextPrefetch = min(w.prefetch, max(minPrefetch, held/2))
		return false
	}
	w.accepted++
	w.acceptedBytes += bytesOf(d)
	if w.prefetch < maxPrefetch && w.accepted >= 4*w.prefetch {
		if possible := min(maxPrefetch, maxWindowBytes/2/(w.acceptedBytes/w.accepted)); possible >= 2*w.prefetch {
			w.nextPrefetch = possible
		}
	}
	return true
}

// discards reports whether all further deliveries are discarded.
func (w *window) discards() bool { return w.nextPrefetch > 0 && w.nextPrefetch <= w.prefetch }

// mustReopen reports whether the consumer is to end now, so that the queue is opened anew:
// nextPrefetch is set, and all accepted messages are acknowledged or excluded.
func (w *window) mustReopen(u *unacked) bool { return w.nextPrefetch > 0 && len(u.held) == 0 }
