package rabbitmq

import (
	"cmp"
	"fmt"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// unacked records the deliveries of a channel that are not acknowledged. Delivery tags
// count the messages of the channel from 1.
type unacked struct {
	arrived   uint64                    // the last tag received
	others    map[uint64]bool           // higher tags of messages that are not from the queue
	held      []amqp.Delivery           // in order, without those in excluded
	delivered uint64                    // the last tag delivered to the user
	confirmed uint64                    // the last tag confirmed by the user
	excluded  map[uint64]*deadLetterJob // to become dead letters or to be replaced
	single    []uint64                  // to be acknowledged individually
	bytes     int                       // size of the messages in held and excluded
}

// deadLetterJob is a delivery that Exclude or DeadLetter was called for.
type deadLetterJob struct {
	amqp.Delivery
	busy bool // DeadLetter is in progress
}

func newUnacked() unacked {
	return unacked{excluded: make(map[uint64]*deadLetterJob), others: make(map[uint64]bool)}
}

// skipTag records the tag of a message of another consumer of the channel, which needs no
// acknowledgement.
func (l *unacked) skipTag(tag uint64) { l.others[tag] = true }

// follows reports whether a tag is the next one, except for those passed to skipTag.
func (l *unacked) follows(tag uint64) bool {
	for l.others[l.arrived+1] {
		delete(l.others, l.arrived+1)
		l.arrived++
	}
	return tag == l.arrived+1
}

// add records a delivery.
func (l *unacked) add(d amqp.Delivery) error {
	if !l.follows(d.DeliveryTag) {
		return fmt.Errorf("RabbitMQ delivers a message with tag %d, expected %d", d.DeliveryTag, l.arrived+1)
	}
	l.arrived++
	l.held = append(l.held, d)
	l.bytes += bytesOf(d)
	return nil
}

// drop records the tag of a delivery that is not kept.
func (l *unacked) drop(d amqp.Delivery) error {
	if !l.follows(d.DeliveryTag) {
		return fmt.Errorf("RabbitMQ delivers a message with tag %d, expected %d", d.DeliveryTag, l.arrived+1)
	}
	l.arrived++
	return nil
}

// bytesOf returns the approximate memory size of a delivery.
func bytesOf(d amqp.Delivery) int { return len(d.Body) + sizeOf(d.Headers) + 1000 }

// through returns how many of the held deliveries have tags up to this one.
func (l *unacked) through(tag uint64) int {
	n, found := slices.BinarySearchFunc(l.held, tag, func(d amqp.Delivery, tag uint64) int { return cmp.Compare(d.DeliveryTag, tag) })
	if found {
		n++
	}
	return n
}

// deliver returns the next messages for the user, up to n.
func (l *unacked) deliver(n int) []broker.Delivery {
	next := l.held[l.through(l.delivered):]
	next = next[:min(n, len(next))]
	if len(next) == 0 {
		return nil
	}
	out := make([]broker.Delivery, len(next))
	for i, d := range next {
		out[i] = broker.Delivery{Tag: d.DeliveryTag, Outgoing: broker.Outgoing{Type: d.Type, ContentType: d.ContentType, Body: d.Body}}
	}
	l.delivered = out[len(out)-1].Tag
	return out
}

// waiting reports whether there are messages to deliver.
func (l *unacked) waiting() bool { return l.through(l.delivered) < len(l.held) }

// confirm records that the deliveries up to tag may be removed, except the excluded ones.
func (l *unacked) confirm(tag uint64) error {
	if tag > l.delivered {
		return errNotDelivered
	}
	l.confirmed = max(l.confirmed, tag)
	return nil
}

// exclude excludes a delivery from those that confirm removes.
func (l *unacked) exclude(tag uint64) error {
	if l.excluded[tag] != nil {
		return nil
	}
	n := l.through(tag)
	if n == 0 || l.held[n-1].DeliveryTag != tag || tag > l.delivered || tag <= l.confirmed {
		return errNotDelivered
	}
	l.excluded[tag] = &deadLetterJob{Delivery: l.held[n-1]}
	l.held = slices.Delete(l.held, n-1, n)
	return nil
}

// startDeadLetter returns a delivery that is to become a dead letter. It will not be
// acknowledged before finishDeadLetter reports that it is done.
func (l *unacked) startDeadLetter(tag uint64) (amqp.Delivery, error) {
	if err := l.exclude(tag); err != nil {
		return amqp.Delivery{}, err
	}
	w := l.excluded[tag]
	if w.busy {
		return amqp.Delivery{}, errNotDelivered
	}
	w.busy = true
	return w.Delivery, nil
}

// excludeLast excludes the last received delivery from those that are delivered to the
// user. finishDeadLetter must be called for it.
func (l *unacked) excludeLast(tag uint64) {
	last := len(l.held) - 1
	l.excluded[tag] = &deadLetterJob{l.held[last], true}
	l.held = slices.Delete(l.held, last, last+1)
}

// finishDeadLetter ends what startDeadLetter or excludeLast has begun.
func (l *unacked) finishDeadLetter(tag uint64, done bool) {
	if !done {
		l.excluded[tag].busy = false
		return
	}
	l.bytes -= bytesOf(l.excluded[tag].Delivery)
	delete(l.excluded, tag)
	l.single = append(l.single, tag)
}

// nextAck returns an acknowledgement that is due: of one tag, or of all tags up to it.
// RabbitMQ closes a channel that acknowledges a tag twice.
func (l *unacked) nextAck() (tag uint64, multiple, ok bool) {
	if n := len(l.single); n > 0 {
		tag, l.single = l.single[n-1], l.single[:n-1]
		return tag, false, true
	}
	n := l.through(l.confirmed)
	if n == 0 {
		return 0, false, false
	}
	// A multiple acknowledgement must not include excluded deliveries.
	through := l.confirmed
	for tag := range l.excluded {
		through = min(through, tag)
	}
	if before := l.through(through); before > 0 {
		return l.removeFirst(before), true, true
	}
	return l.removeFirst(1), false, true
}

// removeFirst removes the first n deliveries, and returns the tag of the last of them.
func (l *unacked) removeFirst(n int) uint64 {
	tag := l.held[n-1].DeliveryTag
	for _, d := range l.held[:n] {
		l.bytes -= bytesOf(d)
	}
	clear(l.held[:n]) // for the garbage collector
	l.held = l.held[n:]
	if len(l.held) == 0 {
		l.held = nil
	}
	return tag
}
