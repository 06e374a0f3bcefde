//go:build linux

package faulttest

import (
	"context"
	"encoding/json"
	"errors"
	"sync/atomic"
	"time"

	"peerlink/local"
)

// entry is a connection of an application to its node's broker.
type entry interface {
	// send sends a message. done is called when the broker has accepted or refused the
	// message, or when its answer is lost.
	send(ctx context.Context, exchange, routingKey, typ string, body []byte, done func(error)) error
	// next waits for a message in the node's inbox. ack removes the message.
	next(ctx context.Context) (body []byte, ack func() error, err error)
	close()
}

// direction is the traffic from one node to another.
type direction struct {
	name     string
	from, to *member
	quiet    *atomic.Bool
	paused   atomic.Int32 // number of faults that require a pause of sending
	ledger   *ledger

	poisoned chan bool // poison to send: whether it is valid for the sender's side
}

const (
	// maxBehind is how many messages may be in flight, in seconds of traffic.
	maxBehind = 2
	// reconnectPause is the time until an application reconnects.
	reconnectPause = 20 * time.Millisecond
	// bursts is how many times per second an application sends.
	bursts = 25
)

// send sends rate messages per second until ctx is done. Messages that the broker has
// not accepted when a connection breaks are sent again, as an application would.
func (d *direction) send(ctx context.Context, rate int) {
	tick := time.NewTicker(time.Second / bursts)
	defer tick.Stop()
	for ctx.Err() == nil {
		e, err := d.from.enter(ctx, false)
		if err == nil {
			err = d.sendBy(ctx, e, tick.C, rate)
			e.close()
		}
		if err != nil {
			pause(ctx, reconnectPause)
		}
	}
}

// sendBy sends on one connection, some messages with each tick.
func (d *direction) sendBy(ctx context.Context, e entry, tick <-chan time.Time, rate int) error {
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case sendable := <-d.poisoned:
			if !d.resting() { // poison is not sent then, either
				err = d.sendPoison(ctx, e, sendable)
			}
		case <-tick:
			for range rate / bursts {
				if d.resting() {
					break
				}
				n, ok := d.ledger.next(maxBehind * rate)
				if !ok {
					break
				}
				if err = d.sendNumber(ctx, e, n); err != nil {
					break
				}
			}
		}
		if err != nil {
			return err
		}
	}
}

// resting reports whether sending is paused.
func (d *direction) resting() bool { return d.quiet.Load() || d.paused.Load() > 0 }

func (d *direction) sendNumber(ctx context.Context, e entry, n int) error {
	m := d.message(n, worldTime())
	body, err := json.Marshal(m)
	if err == nil {
		err = e.send(ctx, d.from.kind.Outbox(d.to.kind), d.routingKey(m), m.Type, body, func(err error) { d.ledger.settle(n, err) })
	}
	if err != nil {
		d.ledger.settle(n, err)
	}
	return err
}

func (d *direction) sendPoison(ctx context.Context, e entry, sendable bool) error {
	m, body := d.poison(sendable)
	d.ledger.nextPoison()
	err := e.send(ctx, d.from.kind.Outbox(d.to.kind), d.routingKey(m), m.Type, body, d.ledger.settlePoison)
	if err != nil {
		d.ledger.settlePoison(err)
	}
	return err
}

// receive removes the messages that arrive at a node, until ctx is done.
func (w *world) receive(ctx context.Context, m *member) {
	for ctx.Err() == nil {
		e, err := m.enter(ctx, true)
		if err != nil {
			pause(ctx, reconnectPause)
			continue
		}
		for err == nil {
			var body []byte
			var ack func() error
			if body, ack, err = e.next(ctx); err == nil {
				d, n, damage := w.check(body)
				if d == nil || d.to != m {
					w.t.Errorf("at %s has arrived what was not meant for it: %s", m.name, damage)
				} else {
					d.ledger.arrive(n, damage)
				}
				err = ack()
			}
		}
		e.close()
		pause(ctx, reconnectPause)
	}
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// byDoor is the connection of an application to the embedded broker.
type byDoor struct {
	client *local.Client
	inbox  *local.ClientSubscription
}

func enterByDoor(ctx context.Context, state, inbox string) (entry, error) {
	client, err := local.Dial(ctx, state)
	if err != nil || inbox == "" {
		return byDoor{client: client}, err
	}
	sub, err := client.Subscribe(ctx, "/queue/"+inbox, 500, local.AckIndividual)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return byDoor{client, sub}, nil
}

func (b byDoor) send(ctx context.Context, exchange, routingKey, typ string, body []byte, done func(error)) error {
	return b.client.Send(ctx, exchange, routingKey, typ, body, done)
}

func (b byDoor) next(ctx context.Context) ([]byte, func() error, error) {
	m, err := b.inbox.Next(ctx)
	return m.Body, func() error { return b.inbox.Ack(m) }, err
}

func (b byDoor) close() { _ = b.client.Close() }
