package rabbitmq

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxWindow bounds the messages held by a consumer, in bytes. RabbitMQ itself bounds
	// only their number.
	maxWindow = 8 << 20
	// minPrefetch is the smallest prefetch count to which large messages reduce it.
	minPrefetch = 8
)

// window bounds the bytes of the messages that a consumer holds. If the messages are so large
// that the bound is exceeded, later deliveries are discarded. When the held messages are
// acknowledged, the consumer ends, which returns the discarded ones to their positions in the
// queue, and the next consumer has a lower prefetch count. If messages are small again, a
// consumer ends in the same way so that the next one has a higher prefetch count. RabbitMQ
// has no other way to change the prefetch count for all types of queues. consumer.mu guards a
// window.
type window struct {
	prefetch       int // prefetch count of this consumer
	nextPrefetch   int // prefetch count of the next consumer, for which this one is to end; 0: it need not end
	arrived, bytes int // number and size of accepted messages
}

// accept counts a delivery if it fits into the window, and reports whether it does. It also
// decides whether the next consumer is to have another prefetch count, of at most
// maxPrefetch.
func (w *window) accept(d amqp.Delivery, u *unacked, maxPrefetch int) bool {
	held := len(u.held) + len(u.excluded)
	if w.discards() || held > 0 && u.bytes+bytesOf(d) > maxWindow {
		w.nextPrefetch = min(w.prefetch, max(minPrefetch, held/2))
		return false
	}
	w.arrived++
	w.bytes += bytesOf(d)
	if w.prefetch < maxPrefetch && w.arrived >= 4*w.prefetch {
		if possible := min(maxPrefetch, maxWindow/2/(w.bytes/w.arrived)); possible >= 2*w.prefetch {
			w.nextPrefetch = possible
		}
	}
	return true
}

// discards reports whether all further deliveries are discarded.
func (w *window) discards() bool { return w.nextPrefetch > 0 && w.nextPrefetch <= w.prefetch }

// mustReopen reports whether the consumer is to end now: nextPrefetch is set, and all
// messages that the consumer holds are acknowledged or excluded.
func (w *window) mustReopen(u *unacked) bool { return w.nextPrefetch > 0 && len(u.held) == 0 }
