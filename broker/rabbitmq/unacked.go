package rabbitmq

import (
	"cmp"
	"fmt"
	"maps"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// unacked records the deliveries to a consumer that are not acknowledged. Delivery tags count
// the messages of the AMQP channel from 1.
type unacked struct {
	lastReceived uint64                       // all tags up to this one were received
	others       map[uint64]bool              // tags after lastReceived of messages that are not from the queue; see skipTag
	held         []amqp.Delivery              // received and not acknowledged, in order, without those in excluded
	delivered    uint64                       // the last tag returned by deliver
	confirmed    uint64                       // the last tag passed to confirm
	excluded     map[uint64]*excludedDelivery // to become dead letters, or to be replaced by copies; by tag
	single       []uint64                     // tags to be acknowledged individually
	bytes        int                          // size of the messages in held and excluded

	moving         int    // how many of excluded are moving
	excludedBytes  int    // size of the messages in excluded
	lowestExcluded uint64 // lowest tag in excluded; 0 if it has to be determined
}

// excludedDelivery is a delivery that Exclude or DeadLetter was called for, or that is being
// replaced by a copy.
type excludedDelivery struct {
	amqp.Delivery
	moving bool // it is being published to the dead-letter queue, or replaced by a copy
}

func newUnacked() unacked {
	return unacked{excluded: make(map[uint64]*excludedDelivery), others: make(map[uint64]bool)}
}

// skipTag records the tag of a message of another consumer of the channel, which needs no
// acknowledgement.
func (u *unacked) skipTag(tag uint64) { u.others[tag] = true }

// follows reports whether a tag is the next one of the queue, after those passed to skipTag.
func (u *unacked) follows(tag uint64) bool {
	for u.others[u.lastReceived+1] {
		delete(u.others, u.lastReceived+1)
		u.lastReceived++
	}
	return tag == u.lastReceived+1
}

// add records a delivery.
func (u *unacked) add(d amqp.Delivery) error {
	if !u.follows(d.DeliveryTag) {
		return fmt.Errorf("RabbitMQ delivers a message with tag %d, expected %d", d.DeliveryTag, u.lastReceived+1)
	}
	u.lastReceived++
	u.held = append(u.held, d)
	u.bytes += bytesOf(d)
	return nil
}

// discard records the tag of a delivery that is not kept, and will not be acknowledged.
func (u *unacked) discard(d amqp.Delivery) error {
	if !u.follows(d.DeliveryTag) {
		return fmt.Errorf("RabbitMQ delivers a message with tag %d, expected %d", d.DeliveryTag, u.lastReceived+1)
	}
	u.lastReceived++
	return nil
}

// bytesOf returns the approximate memory size of a delivery.
func bytesOf(d amqp.Delivery) int { return len(d.Body) + sizeOf(d.Headers) + 1000 }

// countThrough returns how many of the held deliveries have tags up to tag.
func (u *unacked) countThrough(tag uint64) int {
	n, found := slices.BinarySearchFunc(u.held, tag, func(d amqp.Delivery, tag uint64) int { return cmp.Compare(d.DeliveryTag, tag) })
	if found {
		n++
	}
	return n
}

// deliver returns the next messages for [consumer.Next], up to n, and records them as delivered. It
// returns nil if there is none.
func (u *unacked) deliver(n int) []broker.Delivery {
	next := u.held[u.countThrough(u.delivered):]
	next = next[:min(n, len(next))]
	if len(next) == 0 {
		return nil
	}
	list := make([]broker.Delivery, len(next))
	for i, d := range next {
		list[i] = broker.Delivery{Tag: d.DeliveryTag, Outgoing: broker.Outgoing{Type: d.Type, ContentType: d.ContentType, Body: d.Body}}
	}
	u.delivered = list[len(list)-1].Tag
	return list
}

// waiting reports whether there are messages to deliver.
func (u *unacked) waiting() bool { return u.countThrough(u.delivered) < len(u.held) }

// confirm records that the deliveries up to tag, except the excluded ones, are to be
// acknowledged.
func (u *unacked) confirm(tag uint64) error {
	if tag > u.delivered {
		return errNotDelivered
	}
	u.confirmed = max(u.confirmed, tag)
	return nil
}

// exclude excludes a delivery from those that confirm removes, whatever the size of the excluded
// deliveries is.
func (u *unacked) exclude(tag uint64) error {
	if u.excluded[tag] != nil {
		return nil
	}
	n := u.countThrough(tag)
	if n == 0 || u.held[n-1].DeliveryTag != tag || tag > u.delivered || tag <= u.confirmed {
		return errNotDelivered
	}
	u.moveToExcluded(n-1, false)
	return nil
}

// excludeWithin is like exclude, but returns [broker.ErrTooManyExcluded] if the excluded deliveries
// would be larger than maxBytes together.
func (u *unacked) excludeWithin(tag uint64, maxBytes int) error {
	if n := u.countThrough(tag); u.excluded[tag] == nil && n > 0 && len(u.excluded) > 0 && u.excludedBytes+bytesOf(u.held[n-1]) > maxBytes {
		return broker.ErrTooManyExcluded
	}
	return u.exclude(tag)
}

// moveToExcluded moves a delivery, given by its index, from held to excluded.
func (u *unacked) moveToExcluded(i int, moving bool) {
	d := u.held[i]
	if u.lowestExcluded > d.DeliveryTag || len(u.excluded) == 0 {
		u.lowestExcluded = d.DeliveryTag
	}
	u.excluded[d.DeliveryTag] = &excludedDelivery{d, moving}
	if moving {
		u.moving++
	}
	u.excludedBytes += bytesOf(d)
	if i > len(u.held)/2 {
		u.held = slices.Delete(u.held, i, i+1)
		return
	}
	// Thousands of deliveries at the front may be excluded one after the other: the few before
	// them are moved, not the many behind them.
	copy(u.held[1:], u.held[:i])
	u.held[0] = amqp.Delivery{} // for the garbage collector
	u.held = u.held[1:]
}

// startMove excludes a delivery that is to become a dead letter, and returns it. It is not
// acknowledged before finishMove is called with done. Until finishMove is called, a second
// startMove returns an error.
func (u *unacked) startMove(tag uint64) (amqp.Delivery, error) {
	if err := u.exclude(tag); err != nil {
		return amqp.Delivery{}, err
	}
	e := u.excluded[tag]
	if e.moving {
		return amqp.Delivery{}, errNotDelivered
	}
	e.moving = true
	u.moving++
	return e.Delivery, nil
}

// startMoveOfLast excludes the last received delivery, which is to be replaced by a copy and
// so not returned by deliver. It is not acknowledged before finishMove is called with done.
func (u *unacked) startMoveOfLast() {
	u.moveToExcluded(len(u.held)-1, true)
}

// finishMove ends what startMove or startMoveOfLast has begun: if done, the delivery is to be
// acknowledged; otherwise it stays excluded, and startMove may be called again.
func (u *unacked) finishMove(tag uint64, done bool) {
	u.moving--
	if !done {
		u.excluded[tag].moving = false
		return
	}
	size := bytesOf(u.excluded[tag].Delivery)
	u.bytes -= size
	u.excludedBytes -= size
	delete(u.excluded, tag)
	if tag == u.lowestExcluded {
		u.lowestExcluded = 0
	}
	u.single = append(u.single, tag)
}

// nextAck removes and returns an acknowledgement that is due: of tag only, or, if multiple, of
// all tags up to tag. ok is false if none is due. Each tag must be acknowledged once:
// RabbitMQ closes a channel that acknowledges a tag twice.
func (u *unacked) nextAck() (tag uint64, multiple, ok bool) {
	if n := len(u.single); n > 0 {
		tag, u.single = u.single[n-1], u.single[:n-1]
		return tag, false, true
	}
	n := u.countThrough(u.confirmed)
	if n == 0 {
		return 0, false, false
	}
	// A multiple acknowledgement must not include excluded deliveries.
	through := u.confirmed
	if len(u.excluded) > 0 {
		if u.lowestExcluded == 0 {
			u.lowestExcluded = slices.Min(slices.Collect(maps.Keys(u.excluded)))
		}
		through = min(through, u.lowestExcluded)
	}
	if before := u.countThrough(through); before > 0 {
		return u.removeHeld(before), true, true
	}
	return u.removeHeld(1), false, true
}

// removeHeld removes the first n held deliveries, and returns the tag of the last of them.
func (u *unacked) removeHeld(n int) uint64 {
	tag := u.held[n-1].DeliveryTag
	for _, d := range u.held[:n] {
		u.bytes -= bytesOf(d)
	}
	clear(u.held[:n]) // for the garbage collector
	u.held = u.held[n:]
	if len(u.held) == 0 {
		u.held = nil
	}
	return tag
}
