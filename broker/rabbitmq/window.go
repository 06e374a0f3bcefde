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

// window bounds the bytes that a consumer holds. If messages turn out to be so large that
// the bound is exceeded, later deliveries are dropped. When the held ones are
// acknowledged, the consumer ends, which returns the dropped ones to their positions in
// the queue, and the next consumer has a lower prefetch count; or a higher one again, when
// the message size allows that. RabbitMQ has no other way to change the prefetch count for
// all types of queues. The consumer's mu guards it.
type window struct {
	prefetch       int // prefetch count of this consumer
	next           int // prefetch count of the next one, or 0 for no change
	arrived, bytes int // number and size of accepted messages
}

// takes reports whether a delivery fits into the window.
func (w *window) takes(d amqp.Delivery, l *unacked, most int) bool {
	held := len(l.held) + len(l.excluded)
	if w.dropping() || held > 0 && l.bytes+bytesOf(d) > maxWindow {
		w.next = min(w.prefetch, max(minPrefetch, held/2))
		return false
	}
	w.arrived++
	w.bytes += bytesOf(d)
	if w.prefetch < most && w.arrived >= 4*w.prefetch {
		if possible := min(most, maxWindow/2/(w.bytes/w.arrived)); possible >= 2*w.prefetch {
			w.next = possible
		}
	}
	return true
}

// dropping reports whether no more deliveries are accepted.
func (w *window) dropping() bool { return w.next > 0 && w.next <= w.prefetch }

// resized reports whether the consumer should end now: it holds no messages, and the next
// one is to have another prefetch count.
func (w *window) resized(l *unacked) bool { return w.next > 0 && len(l.held) == 0 }
