package rabbitmq

import (
	"cmp"
	"fmt"
	"slices"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// ledger is what RabbitMQ has delivered on a channel and not been told to
// remove. Delivery tags count the messages of the channel from 1.
type ledger struct {
	arrived   uint64                // the last tag entered
	others    map[uint64]bool       // later tags of messages that are none of the queue's
	held      []amqp.Delivery       // in order, without those in aside
	given     uint64                // the last tag given out
	confirmed uint64                // the last tag confirmed
	aside     map[uint64]*asideWork // kept to be set aside: not yet, under way, or tried without success
	lone      []uint64              // to be acknowledged one by one
	bytes     int                   // of what is in held and aside
}

// asideWork is a delivery that is to be set aside.
type asideWork struct {
	amqp.Delivery
	busy bool // it is being set aside
}

func newLedger() ledger {
	return ledger{aside: make(map[uint64]*asideWork), others: make(map[uint64]bool)}
}

// pass notes a tag of a message that has come to another consumer of the channel, which
// needs no acknowledgement.
func (l *ledger) pass(tag uint64) { l.others[tag] = true }

// follows reports whether a tag is the next one, besides those that were passed.
func (l *ledger) follows(tag uint64) bool {
	for l.others[l.arrived+1] {
		delete(l.others, l.arrived+1)
		l.arrived++
	}
	return tag == l.arrived+1
}

// add enters a delivery.
func (l *ledger) add(d amqp.Delivery) error {
	if !l.follows(d.DeliveryTag) {
		return fmt.Errorf("RabbitMQ delivers a message with tag %d, expected %d", d.DeliveryTag, l.arrived+1)
	}
	l.arrived++
	l.held = append(l.held, d)
	l.bytes += bytesOf(d)
	return nil
}

// skip notes the arrival of a delivery that is not entered.
func (l *ledger) skip(d amqp.Delivery) error {
	if !l.follows(d.DeliveryTag) {
		return fmt.Errorf("RabbitMQ delivers a message with tag %d, expected %d", d.DeliveryTag, l.arrived+1)
	}
	l.arrived++
	return nil
}

// bytesOf returns about how much memory a delivery takes.
func bytesOf(d amqp.Delivery) int { return len(d.Body) + sizeOf(d.Headers) + 1000 }

// through returns how many of the held deliveries have tags up to this one.
func (l *ledger) through(tag uint64) int {
	n, found := slices.BinarySearchFunc(l.held, tag, func(d amqp.Delivery, tag uint64) int { return cmp.Compare(d.DeliveryTag, tag) })
	if found {
		n++
	}
	return n
}

// give gives out up to n messages.
func (l *ledger) give(n int) []broker.Delivery {
	next := l.held[l.through(l.given):]
	next = next[:min(n, len(next))]
	if len(next) == 0 {
		return nil
	}
	out := make([]broker.Delivery, len(next))
	for i, d := range next {
		out[i] = broker.Delivery{Tag: d.DeliveryTag, Outgoing: broker.Outgoing{Type: d.Type, ContentType: d.ContentType, Body: d.Body}}
	}
	l.given = out[len(out)-1].Tag
	return out
}

// waiting reports whether there is something to give out.
func (l *ledger) waiting() bool { return l.through(l.given) < len(l.held) }

// confirm notes that everything up to tag may be removed, except for what is to
// be set aside.
func (l *ledger) confirm(tag uint64) error {
	if tag > l.given {
		return ErrNotGivenOut
	}
	l.confirmed = max(l.confirmed, tag)
	return nil
}

// keep takes a delivery out of those that confirm removes.
func (l *ledger) keep(tag uint64) error {
	if l.aside[tag] != nil {
		return nil
	}
	n := l.through(tag)
	if n == 0 || l.held[n-1].DeliveryTag != tag || tag > l.given || tag <= l.confirmed {
		return ErrNotGivenOut
	}
	l.aside[tag] = &asideWork{Delivery: l.held[n-1]}
	l.held = slices.Delete(l.held, n-1, n)
	return nil
}

// hold returns a delivery that is going to be set aside. It will not be
// acknowledged before it is settled that this is done.
func (l *ledger) hold(tag uint64) (amqp.Delivery, error) {
	if err := l.keep(tag); err != nil {
		return amqp.Delivery{}, err
	}
	w := l.aside[tag]
	if w.busy {
		return amqp.Delivery{}, ErrNotGivenOut
	}
	w.busy = true
	return w.Delivery, nil
}

// take takes the delivery that has arrived last out of those that are given out. It
// is settled as if it were set aside.
func (l *ledger) take(tag uint64) {
	last := len(l.held) - 1
	l.aside[tag] = &asideWork{l.held[last], true}
	l.held = slices.Delete(l.held, last, last+1)
}

// settle ends what hold has begun.
func (l *ledger) settle(tag uint64, done bool) {
	if !done {
		l.aside[tag].busy = false
		return
	}
	l.bytes -= bytesOf(l.aside[tag].Delivery)
	delete(l.aside, tag)
	l.lone = append(l.lone, tag)
}

// next returns an acknowledgement that is due: of one tag, or of all up to it.
// RabbitMQ ends a channel that acknowledges a tag twice.
func (l *ledger) next() (tag uint64, multiple, ok bool) {
	if n := len(l.lone); n > 0 {
		tag, l.lone = l.lone[n-1], l.lone[:n-1]
		return tag, false, true
	}
	n := l.through(l.confirmed)
	if n == 0 {
		return 0, false, false
	}
	// One for all must not include those that are to be set aside.
	through := l.confirmed
	for tag := range l.aside {
		through = min(through, tag)
	}
	if before := l.through(through); before > 0 {
		return l.cut(before), true, true
	}
	return l.cut(1), false, true
}

// cut removes the first n deliveries, and returns the tag of the last of them.
func (l *ledger) cut(n int) uint64 {
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
