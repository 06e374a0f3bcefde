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

// appConn is a connection of an application to its node's broker.
type appConn interface {
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
	// maxBehind is the maximum number of messages in flight, in seconds of traffic.
	maxBehind = 2
	// reconnectPause is the time until an application reconnects.
	reconnectPause = 20 * time.Millisecond
	// bursts is the number of times per second that an application sends.
	bursts = 25
)

// send sends rate messages per second until ctx is done. Messages that the broker has
// not accepted when a connection breaks are sent again, as an application would.
func (d *direction) send(ctx context.Context, rate int) {
	tick := time.NewTicker(time.Second / bursts)
	defer tick.Stop()
	for ctx.Err() == nil {
		e, err := d.from.connect(ctx, false)
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
func (d *direction) sendBy(ctx context.Context, e appConn, tick <-chan time.Time, rate int) error {
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case sendable := <-d.poisoned:
			if !d.sendingPaused() { // poison is not sent during a pause, either
				err = d.sendPoison(ctx, e, sendable)
			}
		case <-tick:
			for range rate / bursts {
				if d.sendingPaused() {
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

// sendingPaused reports whether sending is paused.
func (d *direction) sendingPaused() bool { return d.quiet.Load() || d.paused.Load() > 0 }

func (d *direction) sendNumber(ctx context.Context, e appConn, n int) error {
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

func (d *direction) sendPoison(ctx context.Context, e appConn, sendable bool) error {
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
		e, err := m.connect(ctx, true)
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
					w.t.Errorf("%s has received a message that was not sent to it: %s", m.name, damage)
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

// doorConn is the connection of an application to the embedded broker.
type doorConn struct {
	client *local.Client
	inbox  *local.ClientSubscription
}

func dialDoor(ctx context.Context, state, inbox string) (appConn, error) {
	client, err := local.Dial(ctx, state)
	if err != nil || inbox == "" {
		return doorConn{client: client}, err
	}
	sub, err := client.Subscribe(ctx, "/queue/"+inbox, 500, local.AckIndividual)
	if err != nil {
		return nil, errors.Join(err, client.Close())
	}
	return doorConn{client, sub}, nil
}

func (b doorConn) send(ctx context.Context, exchange, routingKey, typ string, body []byte, done func(error)) error {
	return b.client.Send(ctx, exchange, routingKey, typ, body, done)
}

func (b doorConn) next(ctx context.Context) ([]byte, func() error, error) {
	m, err := b.inbox.Next(ctx)
	return m.Body, func() error { return b.inbox.Ack(m) }, err
}

func (b doorConn) close() { _ = b.client.Close() }
