package rabbitmq

import (
	"fmt"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// ledger is what RabbitMQ has delivered on a channel and not been told to
// remove. Delivery tags count the messages of the channel from 1.
type ledger struct {
	first     uint64          // the tag of held[0]
	held      []amqp.Delivery // in order, without gaps
	given     uint64          // the last tag given out
	confirmed uint64          // the last tag confirmed
	aside     map[uint64]bool // those held that are being set aside (false), or were (true)
	lone      []uint64        // were set aside; to be acknowledged one by one
}

func newLedger() ledger { return ledger{first: 1, aside: make(map[uint64]bool)} }

// add enters a delivery.
func (l *ledger) add(d amqp.Delivery) error {
	if want := l.first + uint64(len(l.held)); d.DeliveryTag != want {
		return fmt.Errorf("RabbitMQ delivers a message with tag %d, expected %d", d.DeliveryTag, want)
	}
	l.held = append(l.held, d)
	return nil
}

// give gives out up to n messages.
func (l *ledger) give(n int) []broker.Delivery {
	next := l.held[l.given+1-l.first:] // what leaves the ledger was given out
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

// waiting tells whether there is something to give out.
func (l *ledger) waiting() bool { return l.first+uint64(len(l.held)) > l.given+1 }

// confirm notes that everything up to tag may be removed.
func (l *ledger) confirm(tag uint64) error {
	if tag > l.given {
		return ErrNotGivenOut
	}
	l.confirmed = max(l.confirmed, tag)
	return nil
}

// hold returns a delivery that is going to be set aside. Until that is settled
// it will not be acknowledged.
func (l *ledger) hold(tag uint64) (amqp.Delivery, error) {
	if _, taken := l.aside[tag]; taken || tag > l.given || tag <= l.confirmed || tag < l.first {
		return amqp.Delivery{}, ErrNotGivenOut
	}
	l.aside[tag] = false
	return l.held[tag-l.first], nil
}

// settle ends what hold has begun.
func (l *ledger) settle(tag uint64, done bool) {
	if !done {
		delete(l.aside, tag)
		return
	}
	l.aside[tag] = true
	l.lone = append(l.lone, tag)
}

// next returns an acknowledgement that is due: of one tag, or of all up to it.
// RabbitMQ ends a channel that acknowledges a tag twice.
func (l *ledger) next() (tag uint64, multiple, ok bool) {
	if n := len(l.lone); n > 0 {
		tag, l.lone = l.lone[n-1], l.lone[:n-1]
		l.drop()
		return tag, false, true
	}
	through := l.confirmed
	for t, done := range l.aside {
		if !done && t <= through {
			through = t - 1
		}
	}
	for through >= l.first && l.aside[through] {
		through--
	}
	if through < l.first {
		return 0, false, false
	}
	for t := range l.aside {
		if t <= through {
			delete(l.aside, t)
		}
	}
	l.cut(int(through - l.first + 1))
	l.drop()
	return through, true, true
}

// drop removes what was set aside from the front.
func (l *ledger) drop() {
	for len(l.held) > 0 && l.aside[l.first] {
		delete(l.aside, l.first)
		l.cut(1)
	}
}

// cut removes the first n deliveries.
func (l *ledger) cut(n int) {
	clear(l.held[:n]) // for the garbage collector
	l.held = l.held[n:]
	l.first += uint64(n)
	if len(l.held) == 0 {
		l.held = nil
	}
}
