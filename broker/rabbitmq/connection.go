package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cenkalti/backoff/v5"
	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// connection is one of the broker's connections to RabbitMQ. It is made when
// it is first needed, and again when it is needed after it was lost.
type connection struct {
	broker  *Broker
	purpose string // "publishing", "consuming" or "declaring"

	mu        sync.Mutex
	next      *connection     // for what this one has no room for; nil if that was not needed
	current   *liveConn       // nil, or it may have ended
	dialing   *dialing        // the attempt that is under way, if any
	pauses    backoff.BackOff // between attempts that fail
	notBefore time.Time       // the next attempt
}

// dialing is an attempt to connect, shared by all who wait for it.
type dialing struct {
	done chan struct{} // closed when what follows is set
	live *liveConn
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
func (c *connection) open(ctx context.Context, prepare func(*liveConn, *amqp.Channel) error) (l *liveConn, ch *amqp.Channel, err error) {
	for range maxConnections {
		if l, err = c.get(ctx); err != nil {
			return nil, nil, err
		}
		if ch, err = l.open(ctx, prepare); !errors.Is(err, amqp.ErrChannelMax) {
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

// blocked returns why RabbitMQ takes nothing from the connection, if so.
func (c *connection) blocked() error {
	l := c.latest()
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
func (c *connection) get(ctx context.Context) (*liveConn, error) {
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

func (c *connection) dial(d *dialing, before *liveConn, notBefore time.Time) {
	b := c.broker
	if before != nil {
		select {
		case <-before.ended: // first the log says that it is lost
		case <-b.life.Done():
		}
	}
	var l *liveConn
	var r reached
	err := wait.Sleep(b.life, time.Until(notBefore))
	if err == nil {
		ctx, cancel := context.WithTimeoutCause(b.life, b.opts.ConnectTimeout, fmt.Errorf("no answer within %v", b.opts.ConnectTimeout))
		last := ""
		if before != nil {
			last = before.at
		}
		if r, err = b.address.dial(ctx, c.purpose, last); err == nil {
			l = &liveConn{Connection: r.conn, broker: b, socket: r.socket, at: r.at, born: time.Now(), ended: make(chan struct{}), block: newBlockage()}
		}
		cancel()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case b.life.Err() != nil:
		if l != nil {
			l.cut()
		}
		l, err = nil, broker.ErrClosed
	case err != nil:
		c.notBefore = time.Now().Add(c.pauses.NextBackOff())
		b.health.unreachable(err)
	default:
		c.notBefore = time.Time{}
		c.pauses.Reset()
		c.current = l
		if first := b.health.up(l.Properties["version"], l.at); !first && r.choice {
			b.log.Info("another connection to RabbitMQ", "purpose", c.purpose, "address", l.at)
		}
		go l.watch(b, l.NotifyClose(make(chan *amqp.Error, 1)), l.NotifyBlocked(make(chan amqp.Blocking, 4)))
	}
	c.dialing = nil
	d.live, d.err = l, err
	close(d.done)
}

// close ends the connection, in good order if that is possible before deadline.
// Afterwards, when the broker's life is over, there will be no other.
func (c *connection) close(deadline time.Time) {
	if l := c.latest(); l != nil {
		// The library's own deadline does not hold for what others write.
		defer time.AfterFunc(time.Until(deadline), l.cut).Stop()
		_ = l.CloseDeadline(deadline) // it is over in any case
	}
}

// latest returns the connection that was made last, or nil.
func (c *connection) latest() *liveConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// liveConn is a connection from when it is made until it ends.
type liveConn struct {
	*amqp.Connection
	broker *Broker
	socket net.Conn
	at     string // host and port
	born   time.Time
	ended  chan struct{} // closed when the end is reported

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
func (l *liveConn) blockage() *blockage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.block
}

// blocked returns the blockage that is going on, or nil.
func (l *liveConn) blocked() *blockage {
	b := l.blockage()
	select {
	case <-b.begun:
		return b
	default:
		return nil
	}
}

// setBlocked notes that a blockage has begun.
func (l *liveConn) setBlocked(reason string) {
	if l.blocked() == nil {
		b := l.blockage()
		b.reason = reason
		close(b.begun)
	}
}

// setUnblocked notes that the blockage, if there was one, is over.
func (l *liveConn) setUnblocked() {
	if b := l.blocked(); b != nil {
		l.mu.Lock()
		l.block = newBlockage()
		l.mu.Unlock()
		close(b.over)
	}
}

// watch keeps the connection's state, and reports it, until it ends.
func (l *liveConn) watch(b *Broker, closed <-chan *amqp.Error, blocked <-chan amqp.Blocking) {
	defer close(l.ended)
	for {
		select {
		case e := <-closed:
			l.setUnblocked()
			if e != nil && b.life.Err() == nil {
				b.health.lost(l, explain(e))
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

// cut ends the connection at once. Whatever waits for RabbitMQ on it fails.
func (l *liveConn) cut() { _ = l.socket.Close() }

// errSilent is why an exchange with RabbitMQ ends that has had no answer.
func (l *liveConn) errSilent() error {
	return fmt.Errorf("RabbitMQ has not answered within %v", l.broker.opts.ConnectTimeout)
}

// call runs something that RabbitMQ answers. Neither the library nor, in all
// states, RabbitMQ knows a time limit for that; here it is ctx, and
// [Options.ConnectTimeout]. When the latter is over and RabbitMQ has not said that
// it is blocked, the connection is cut: it is of no use to anybody, and the next
// one may be. abandoned, unless nil, is called if do succeeds after call has failed.
func (l *liveConn) call(ctx context.Context, do func() error, abandoned func()) error {
	block := l.blockage()
	done := make(chan error, 1)
	limit := time.NewTimer(l.broker.opts.ConnectTimeout)
	go func() { done <- explain(do()) }()
	var err error
	select {
	case err := <-done:
		limit.Stop()
		if err != nil && l.broker.life.Err() != nil {
			return broker.ErrClosed
		}
		return err
	case <-limit.C:
		err = l.errSilent()
		limit.Reset(0)
	case <-ctx.Done():
		err = context.Cause(ctx)
	case <-block.begun:
		err = block.err()
	case <-l.broker.life.Done():
		err = broker.ErrClosed
	}
	go l.abandon(limit, done, abandoned)
	return err
}

// abandon follows a call that nobody waits for any more.
func (l *liveConn) abandon(limit *time.Timer, done <-chan error, abandoned func()) {
	defer limit.Stop()
	for {
		select {
		case err := <-done:
			if err == nil && abandoned != nil {
				abandoned()
			}
			return
		case <-limit.C:
			if block := l.blocked(); block != nil {
				<-block.over // which comes with the end of the connection, too
				limit.Reset(l.broker.opts.ConnectTimeout)
				continue
			}
			if l.broker.life.Err() == nil {
				l.broker.log.Warn("RabbitMQ does not answer on a connection, which is given up", "err", l.errSilent())
			}
			l.cut()
		}
	}
}

// bounded bounds a write by ctx: when that has ended, and the write has not a
// little later, the connection is cut. RabbitMQ does not read then, and all who
// write to it wait. The function returned is to be called when the write is done.
func (l *liveConn) bounded(ctx context.Context) (done func()) {
	const grace = time.Second
	var over atomic.Bool
	stop := context.AfterFunc(ctx, func() {
		time.AfterFunc(grace, func() {
			if !over.Load() {
				l.cut()
			}
		})
	})
	return func() {
		over.Store(true)
		stop()
	}
}

// open opens a channel and prepares it. While RabbitMQ takes no messages, it
// reports [ErrBlocked].
func (l *liveConn) open(ctx context.Context, prepare func(*liveConn, *amqp.Channel) error) (*amqp.Channel, error) {
	if block := l.blocked(); block != nil {
		return nil, block.err()
	}
	var ch *amqp.Channel
	err := l.call(ctx, func() (err error) {
		if ch, err = l.Channel(); err != nil {
			return err
		}
		if err = prepare(l, ch); err != nil && !errors.Is(err, errLockSilent) { // then it is still in use
			ch.Close()
		}
		return err
	}, func() { ch.Close() })
	if err != nil {
		return nil, err
	}
	return ch, nil
}

// patience is how long a channel that is closed is waited for. It is over in
// any case; but what was given back to its queue is there again only after
// RabbitMQ has answered.
const patience = time.Second

// closeChannel closes a channel, and waits for a moment until that is done. It
// reports whether it is.
func (l *liveConn) closeChannel(ch *amqp.Channel) bool {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return l.call(ctx, ch.Close, nil) == nil
}
