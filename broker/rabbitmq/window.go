package rabbitmq

import (
	amqp "github.com/rabbitmq/amqp091-go"
)

const (
	// maxWindowBytes bounds the size of the messages that a consumer holds. RabbitMQ itself
	// bounds only their number.
	maxWindowBytes = 8 << 20
	// maxExcludedBytes bounds the size of the excluded messages, which a consumer holds in addition:
	// those that can be neither sent nor set aside. It is the size of more than 10,000 SMP messages.
	maxExcludedBytes = 16 << 20
	// maxPrefetch is the highest prefetch count of AMQP.
	maxPrefetch = 65_535
	// minPrefetch is the lowest prefetch count that is set because messages are large.
	minPrefetch = 8
)

// window bounds the size of the messages that a consumer holds. A delivery that would exceed the
// bound is discarded, and so are all later ones. When the held messages are acknowledged, the
// consumer ends, which returns the discarded messages to their positions in the queue, and the
// next consumer has a lower prefetch count. If messages are small again, a consumer ends in the
// same way, so that the next one has a higher prefetch count. RabbitMQ has no other way to change
// the prefetch count that works with all types of queues.
//
// RabbitMQ also counts excluded messages (see [broker.Consumer]) among those that it has delivered. So
// that they do not keep the consumer from getting others, the consumer ends, too, when they take half of
// the prefetch count, and the next one has a higher count. consumer.mu guards a window.
type window struct {
	prefetch       int          // prefetch count of this consumer, without the addition for excluded messages
	excludedBefore excludedSize // of the consumer before: as much is probably excluded again
	reopening      bool         // this consumer ends now: no message is moved any more
	needsRoom      bool         // this consumer is to end, because excluded messages take too much of the prefetch count
	nextPrefetch   int          // if not 0, this consumer is to end, and the next one has this prefetch count
	accepted       int          // number of messages accepted since the consumer was opened
	acceptedBytes  int          // their size
}

// excludedSize is what a consumer leaves excluded at its end.
type excludedSize struct {
	count, bytes int
	addition     int // to the prefetch count of the next consumer
}

// total returns the prefetch count that RabbitMQ is given.
func (w *window) total() int { return min(maxPrefetch, w.prefetch+w.excludedBefore.addition) }

// excludedAtEnd returns what is excluded at the end of the consumer. The next one gets room for as many
// excluded messages again, unless there were deliveries that did not fit.
func (w *window) excludedAtEnd(u *unacked) excludedSize {
	n := len(u.excluded)
	if w.discards() {
		return excludedSize{n, u.excludedBytes, n}
	}
	return excludedSize{n, u.excludedBytes, 2 * n}
}

// recordExcluded sets needsRoom if the excluded messages have become too many.
func (w *window) recordExcluded(u *unacked) {
	total := w.total()
	w.needsRoom = w.needsRoom || total < maxPrefetch && 2*(total-len(u.excluded)) < w.prefetch
}

// accept reports whether a delivery fits into the window, and counts it if it does. If it does
// not, or if messages are small enough for a higher prefetch count, of at most maxPrefetch, accept
// sets nextPrefetch.
func (w *window) accept(d amqp.Delivery, u *unacked, maxPrefetch int) bool {
	maxBytes := maxWindowBytes + min(maxExcludedBytes, max(u.excludedBytes, w.excludedBefore.bytes))
	if w.discards() || len(u.held)+len(u.excluded) > 0 && u.bytes+bytesOf(d) > maxBytes {
		others := len(u.held) + len(u.excluded) - max(len(u.excluded), w.excludedBefore.count)
		w.nextPrefetch = min(w.prefetch, max(minPrefetch, others/2))
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
// nextPrefetch or needsRoom is set, and all accepted messages are acknowledged or excluded. None of the
// excluded ones must be moving: it would be moved, and returned to the queue nevertheless.
func (w *window) mustReopen(u *unacked) bool { return w.waitsForMoves(u) && u.moving == 0 }

// waitsForMoves reports whether the consumer is to end as soon as no message is moving.
func (w *window) waitsForMoves(u *unacked) bool {
	return (w.nextPrefetch > 0 || w.needsRoom) && len(u.held) == 0 && len(u.single) == 0
}

// allowsMove reports whether a message may begin to be moved. While the consumer waits for the end of moves,
// it may not: those of thousands of messages, one after the other, would keep the messages behind them waiting.
func (w *window) allowsMove(u *unacked) bool { return !w.reopening && !w.waitsForMoves(u) }
