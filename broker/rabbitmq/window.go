package rabbitmq

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxWindow is how many bytes of messages a consumer holds. RabbitMQ itself
	// bounds only their number.
	maxWindow = 8 << 20
	// minPrefetch is the smallest number of messages that RabbitMQ sends ahead for
	// the sake of their size.
	minPrefetch = 8
)

// window bounds what RabbitMQ sends ahead to a consumer. When messages turn out to be
// so large that too many bytes are held, what still arrives is dropped. When the others
// are dealt with, the consumer ends, which brings what was dropped back to its place in
// the queue, and the next one gets fewer at a time; or more again, when their size
// allows that. RabbitMQ has no other way to change the number on all types of queues.
// The consumer's mu guards it.
type window struct {
	prefetch       int // of this consumer
	next           int // of the next one, or 0 if that is not to be changed
	arrived, bytes int // messages that there was room for
}

// takes reports whether there is room for a delivery beside what is held.
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

// dropping reports whether nothing more is taken.
func (w *window) dropping() bool { return w.next > 0 && w.next <= w.prefetch }

// resized reports whether the consumer is to end now: it has nothing left, and the
// next one is to have another prefetch.
func (w *window) resized(l *unacked) bool { return w.next > 0 && len(l.held) == 0 }
