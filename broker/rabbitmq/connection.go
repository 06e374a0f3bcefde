package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/pause"
)

// connection is one of the broker's connections to RabbitMQ. It is made when
// it is first needed, and again when it is needed after it was lost.
type connection struct {
	broker  *Broker
	purpose string // "publishing", "consuming" or "declaring"

	mu        sync.Mutex
	next      *connection     // for what this one has no room for; nil if that was not needed
	current   *live           // nil, or it may have ended
	dialing   *dialing        // the attempt that is under way, if any
	pauses    backoff.BackOff // between attempts that fail
	notBefore time.Time       // the next attempt
}

// dialing is an attempt to connect, shared by all who wait for it.
type dialing struct {
	done chan struct{} // closed when what follows is set
	live *live
	err  error
}

func newConnection(b *Broker, purpose string) *connection {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 100*time.Millisecond, 5*time.Second
	return &connection{broker: b, purpose: purpose, pauses: pauses}
}

// maxConnections is how many connections there may be for one purpose. RabbitMQ
// gives each of them 2,047 channels, unless it is configured otherwise.
const maxConnections = 64

// open opens a channel and prepares it, on the connection or, where that has no
// room for more, on the next one that has. It returns the connection too.
func (c *connection) open(ctx context.Context, prepare func(*live, *amqp.Channel) error) (l *live, ch *amqp.Channel, err error) {
	for range maxConnections {
		if l, err = c.get(ctx); err != nil {
			return nil, nil, err
		}
		if ch, err = l.open(ctx, c.broker, prepare); !errors.Is(err, amqp.ErrChannelMax) {
			return l, ch, err
		}
		c = c.following()
	}
	return nil, nil, err
}

func (c *connection) following() *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = newConnection(c.broker, c.purpose)
	}
	return c.next
}

// chain is the connection, and all that follow it.
func (c *connection) chain() (list []*connection) {
	for c != nil {
		list = append(list, c)
		c.mu.Lock()
		next := c.next
		c.mu.Unlock()
		c = next
	}
	return list
}

// restore makes the connection again in the background, if there was one or should
// have been, and nobody else does it.
func (c *connection) restore() {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := c.current != nil && c.current.IsClosed() || c.current == nil && !c.notBefore.IsZero()
	if lost && c.dialing == nil {
		go func() { _, _ = c.get(c.broker.life) }()
	}
}

// blocked tells why RabbitMQ takes nothing from the connection, if so.
func (c *connection) blocked() error {
	c.mu.Lock()
	l := c.current
	c.mu.Unlock()
	if l == nil || l.IsClosed() {
		return nil
	}
	if block := l.blocked(); block != nil {
		return block.err()
	}
	return nil
}

// get returns the connection, and makes it if there is none. It makes one
// attempt, after a pause if the last one has failed; that is at most 5 s plus
// [Options.ConnectTimeout].
func (c *connection) get(ctx context.Context) (*live, error) {
	c.mu.Lock()
	if c.current != nil && !c.current.IsClosed() {
		defer c.mu.Unlock()
		return c.current, nil
	}
	if c.broker.life.Err() != nil {
		c.mu.Unlock()
		return nil, broker.ErrClosed
	}
	d := c.dialing
	if d == nil {
		d = &dialing{done: make(chan struct{})}
		c.dialing = d
		go c.dial(d, c.current, c.notBefore)
	}
	c.mu.Unlock()
	select {
	case <-d.done:
		return d.live, d.err
	case <-ctx.Done():
		return nil, context.Cause(ctx)
	case <-c.broker.life.Done():
		return nil, broker.ErrClosed
	}
}

func (c *connection) dial(d *dialing, before *live, notBefore time.Time) {
	b := c.broker
	if before != nil {
		select {
		case <-before.ended: // first the log says that it is lost
		case <-b.life.Done():
		}
	}
	var l *live
	err := pause.For(b.life, time.Until(notBefore))
	if err == nil {
		ctx, cancel := context.WithTimeout(b.life, b.opts.ConnectTimeout)
		var conn *amqp.Connection
		if conn, err = b.address.dial(ctx, c.purpose); err == nil {
			l = &live{Connection: conn, born: time.Now(), ended: make(chan struct{}), block: newBlockage()}
		} else {
			err = fmt.Errorf("connect to %s: %w", b.address.shown, err)
		}
		cancel()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case b.life.Err() != nil:
		if l != nil {
			go l.Close()
		}
		l, err = nil, broker.ErrClosed
	case err != nil:
		c.notBefore = time.Now().Add(c.pauses.NextBackOff())
		b.health.unreachable(err)
	default:
		c.notBefore = time.Time{}
		c.pauses.Reset()
		c.current = l
		b.health.up(l.Properties["version"])
		go l.watch(b, l.NotifyClose(make(chan *amqp.Error, 1)), l.NotifyBlocked(make(chan amqp.Blocking, 4)))
	}
	c.dialing = nil
	d.live, d.err = l, err
	close(d.done)
}

// close ends the connection. Afterwards, when the broker's life is over, there
// will be no other.
func (c *connection) close(deadline time.Time) {
	c.mu.Lock()
	l := c.current
	c.mu.Unlock()
	if l != nil {
		_ = l.CloseDeadline(deadline) // it is over in any case
	}
}

// live is a connection from when it is made until it ends.
type live struct {
	*amqp.Connection
	born  time.Time
	ended chan struct{} // closed when the end is reported

	mu    sync.Mutex
	block *blockage // the one that is going on, or the next that may come
}

// blockage is a time in which RabbitMQ does not read from the connection,
// because it is short of memory or disk.
type blockage struct {
	begun  chan struct{} // closed when it has begun, and reason is set
	over   chan struct{} // closed when it is over
	reason string
}

func newBlockage() *blockage {
	return &blockage{begun: make(chan struct{}), over: make(chan struct{})}
}

func (b *blockage) err() error { return fmt.Errorf("%w: %s", ErrBlocked, b.reason) }

// blockage returns the one that is going on, or the next that may come.
func (l *live) blockage() *blockage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.block
}

// blocked returns the blockage that is going on, or nil.
func (l *live) blocked() *blockage {
	b := l.blockage()
	select {
	case <-b.begun:
		return b
	default:
		return nil
	}
}

// setBlocked notes that a blockage has begun.
func (l *live) setBlocked(reason string) {
	if l.blocked() == nil {
		b := l.blockage()
		b.reason = reason
		close(b.begun)
	}
}

// setUnblocked notes that the blockage, if there was one, is over.
func (l *live) setUnblocked() {
	if b := l.blocked(); b != nil {
		l.mu.Lock()
		l.block = newBlockage()
		l.mu.Unlock()
		close(b.over)
	}
}

// watch keeps the connection's state, and reports it, until it ends.
func (l *live) watch(b *Broker, closed <-chan *amqp.Error, blocked <-chan amqp.Blocking) {
	defer close(l.ended)
	for {
		select {
		case e := <-closed:
			l.setUnblocked()
			if e != nil && b.life.Err() == nil {
				b.health.lost(l.born, explain(e))
			}
			return
		case event, ok := <-blocked:
			switch {
			case !ok:
				blocked = nil
			case event.Active:
				l.setBlocked(event.Reason)
				b.log.Warn("RabbitMQ takes no messages for now", "reason", event.Reason)
			default:
				l.setUnblocked()
				b.log.Info("RabbitMQ takes messages again")
			}
		}
	}
}

// open opens a channel and prepares it. While RabbitMQ takes no messages, it
// reports [ErrBlocked]. Neither the library nor, in all states, RabbitMQ knows
// a time limit for that; here it is ctx, and [Options.ConnectTimeout].
func (l *live) open(ctx context.Context, b *Broker, prepare func(*live, *amqp.Channel) error) (*amqp.Channel, error) {
	block := l.blockage()
	select {
	case <-block.begun:
		return nil, block.err()
	default:
	}
	ctx, cancel := context.WithTimeoutCause(ctx, b.opts.ConnectTimeout,
		fmt.Errorf("RabbitMQ has not answered within %v", b.opts.ConnectTimeout))
	defer cancel()
	type result struct {
		ch  *amqp.Channel
		err error
	}
	done := make(chan result, 1)
	go func() {
		ch, err := l.Channel()
		if err = explain(err); err == nil {
			if err = prepare(l, ch); err != nil {
				ch.Close()
			}
		}
		done <- result{ch, err}
	}()
	var err error
	select {
	case r := <-done:
		if r.err != nil && b.life.Err() != nil {
			return nil, broker.ErrClosed
		}
		return r.ch, r.err
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-block.begun:
		err = block.err()
	case <-b.life.Done():
		err = broker.ErrClosed
	}
	go func() { // if RabbitMQ answers after all
		if r := <-done; r.err == nil {
			r.ch.Close()
		}
	}()
	return nil, err
}

// patience is how long a channel that is closed is waited for. It is over in
// any case; but what was given back to its queue is there again only after
// RabbitMQ has answered.
const patience = 2 * time.Second

// closeChannel closes a channel, and waits for a moment until that is done.
func closeChannel(ch *amqp.Channel) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		ch.Close()
	}()
	t := time.NewTimer(patience)
	defer t.Stop()
	select {
	case <-done:
	case <-t.C:
	}
}
