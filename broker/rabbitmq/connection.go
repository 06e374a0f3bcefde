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

// connection is one of the broker's connections to RabbitMQ. It is opened on first use,
// and opened again on the next use after it was lost.
type connection struct {
	broker  *Broker
	purpose string // "publishing", "consuming" or "declaring"

	mu        sync.Mutex
	next      *connection     // used when this one has no more channels; nil if that was not needed
	current   *liveConn       // nil if there was none; may be closed
	dialing   *dialing        // the current attempt, or nil
	pauses    backoff.BackOff // between attempts after a failure
	notBefore time.Time       // earliest time of the next attempt
}

// dialing is an attempt to connect, shared by all callers that wait for it.
type dialing struct {
	done chan struct{} // closed after the following fields are set
	live *liveConn
	err  error
}

func newConnection(b *Broker, purpose string) *connection {
	pauses := backoff.NewExponentialBackOff()
	pauses.InitialInterval, pauses.MaxInterval = 100*time.Millisecond, 5*time.Second
	return &connection{broker: b, purpose: purpose, pauses: pauses}
}

// maxConnections bounds the number of connections for one purpose. By default, RabbitMQ
// permits 2,047 channels on each of them.
const maxConnections = 64

// open opens a channel and calls prepare with it: on this connection or, if its number of
// channels is exhausted, on the next connection of the chain. It also returns that
// connection. After an error, prepare may still be running; see [liveConn.open].
func (c *connection) open(ctx context.Context, prepare func(*liveConn, *amqp.Channel) error) (l *liveConn, ch *amqp.Channel, err error) {
	for range maxConnections {
		if l, err = c.get(ctx); err != nil {
			return nil, nil, err
		}
		if ch, err = l.open(ctx, prepare); !errors.Is(err, amqp.ErrChannelMax) {
			return l, ch, err
		}
		c = c.nextInChain()
	}
	return nil, nil, err
}

// nextInChain returns the connection that is used when this one has no more channels.
func (c *connection) nextInChain() *connection {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.next == nil {
		c.next = newConnection(c.broker, c.purpose)
	}
	return c.next
}

// chain returns the connection and all that follow it.
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

// reconnectIfLost reconnects in the background if the connection was lost or could not be opened,
// and no other goroutine is connecting.
func (c *connection) reconnectIfLost() {
	c.mu.Lock()
	defer c.mu.Unlock()
	lost := c.current != nil && c.current.IsClosed() || c.current == nil && !c.notBefore.IsZero()
	if lost && c.dialing == nil {
		go func() { _, _ = c.get(c.broker.life) }()
	}
}

// blockedError returns why RabbitMQ has blocked the connection, or nil.
func (c *connection) blockedError() error {
	l := c.latest()
	if l == nil || l.IsClosed() {
		return nil
	}
	if block := l.blocked(); block != nil {
		return block.err()
	}
	return nil
}

// get returns the connection, and opens it if necessary. It makes one attempt, after a
// pause if the previous attempt has failed; this takes at most 7.5 s (the longest pause, which
// is random) plus [Options.ConnectTimeout].
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

// dial makes the attempt d to connect, not before notBefore, and sets its result. before is
// the previous connection, or nil.
func (c *connection) dial(d *dialing, before *liveConn, notBefore time.Time) {
	b := c.broker
	if before != nil {
		select {
		case <-before.ended: // so that the loss is logged first
		case <-b.life.Done():
		}
	}
	var l *liveConn
	var r dialResult
	err := wait.Sleep(b.life, time.Until(notBefore))
	if err == nil {
		ctx, cancel := context.WithTimeoutCause(b.life, b.opts.ConnectTimeout, fmt.Errorf("no answer within %v", b.opts.ConnectTimeout))
		previous := ""
		if before != nil {
			previous = before.address
		}
		if r, err = b.endpoints.dial(ctx, c.purpose, previous); err == nil {
			l = &liveConn{Connection: r.conn, broker: b, socket: r.socket, address: r.address, born: time.Now(), ended: make(chan struct{}), block: newBlockage()}
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
		b.health.recordUnreachable(err)
	default:
		c.notBefore = time.Time{}
		c.pauses.Reset()
		c.current = l
		if first := b.health.recordConnected(l.Properties["version"], l.address); !first && r.hasAlternatives {
			b.log.Info("opened a further connection to RabbitMQ", "purpose", c.purpose, "address", l.address)
		}
		go l.watch(b, l.NotifyClose(make(chan *amqp.Error, 1)), l.NotifyBlocked(make(chan amqp.Blocking, 4)))
	}
	c.dialing = nil
	d.live, d.err = l, err
	close(d.done)
}

// close closes the connection, gracefully if that is possible before deadline. The
// broker's context must have ended, so that no new connection is opened.
func (c *connection) close(deadline time.Time) {
	if l := c.latest(); l != nil {
		// The library's own deadline does not apply to writes of other goroutines.
		defer time.AfterFunc(time.Until(deadline), l.cut).Stop()
		_ = l.CloseDeadline(deadline) // the connection is closed in any case
	}
}

// latest returns the connection that was opened last, which may be closed, or nil.
func (c *connection) latest() *liveConn {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.current
}

// liveConn is one AMQP connection, from connecting to its end.
type liveConn struct {
	*amqp.Connection
	broker  *Broker
	socket  net.Conn
	address string // host and port
	born    time.Time
	ended   chan struct{} // closed when the connection has ended, and its loss was logged

	lastAnswer atomic.Int64 // when RabbitMQ answered last (see recordAnswer), as a duration since born

	mu    sync.Mutex
	block *blockage // the current blockage, or else the next one
}

// blockage is a period in which RabbitMQ does not read from the connection, because it is
// short of memory or disk.
type blockage struct {
	begun  chan struct{} // closed when the blockage has begun and reason is set
	over   chan struct{} // closed when the blockage is over, or the connection has ended
	reason string
}

func newBlockage() *blockage {
	return &blockage{begun: make(chan struct{}), over: make(chan struct{})}
}

func (b *blockage) err() error { return fmt.Errorf("%w: %s", errBlocked, b.reason) }

// blockage returns the current blockage, or else the next one, which has not begun.
func (l *liveConn) blockage() *blockage {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.block
}

// blocked returns the current blockage, or nil.
func (l *liveConn) blocked() *blockage {
	b := l.blockage()
	select {
	case <-b.begun:
		return b
	default:
		return nil
	}
}

// setBlocked records that a blockage has begun.
func (l *liveConn) setBlocked(reason string) {
	if l.blocked() == nil {
		b := l.blockage()
		b.reason = reason
		close(b.begun)
	}
}

// setUnblocked records that the current blockage, if any, is over.
func (l *liveConn) setUnblocked() {
	if b := l.blocked(); b != nil {
		l.mu.Lock()
		l.block = newBlockage()
		l.mu.Unlock()
		close(b.over)
	}
}

// watch records and logs state changes of the connection until it ends.
func (l *liveConn) watch(b *Broker, closed <-chan *amqp.Error, blocked <-chan amqp.Blocking) {
	defer close(l.ended)
	for {
		select {
		case e := <-closed:
			l.setUnblocked()
			if e != nil && b.life.Err() == nil {
				b.health.recordLost(l, explain(e))
			}
			return
		case event, ok := <-blocked:
			switch {
			case !ok:
				blocked = nil
			case event.Active:
				l.setBlocked(event.Reason)
				b.log.Warn("RabbitMQ blocks publishing", "reason", event.Reason)
			default:
				l.setUnblocked()
				b.log.Info("RabbitMQ accepts messages again")
			}
		}
	}
}

// cut closes the socket, so that all pending operations on the connection fail.
func (l *liveConn) cut() { _ = l.socket.Close() }

// recordAnswer records that RabbitMQ has sent something on the connection: a delivery, a
// confirmation, or the reply to a method. Heartbeats do not count, since a RabbitMQ that
// executes nothing sends them too.
func (l *liveConn) recordAnswer() { l.lastAnswer.Store(int64(time.Since(l.born))) }

// timeLeft returns how much longer an operation that began at start may take: until the time
// silence has passed since start, or since RabbitMQ's last answer (see recordAnswer) if that was
// later, but at most until the time limit has passed since start. RabbitMQ executes the operations
// of a connection in order, so this one may have to wait for many earlier ones.
func (l *liveConn) timeLeft(start time.Time, silence, limit time.Duration) time.Duration {
	until := start
	if answered := l.born.Add(time.Duration(l.lastAnswer.Load())); answered.After(until) {
		until = answered
	}
	until = until.Add(silence)
	if last := start.Add(limit); last.Before(until) {
		until = last
	}
	return time.Until(until)
}

// maxMethodTimeouts is how many times [Options.ConnectTimeout] a method may take while
// RabbitMQ answers other operations, so that methods without an answer do not accumulate.
const maxMethodTimeouts = 6

// methodTimeLeft is timeLeft for a synchronous AMQP method.
func (l *liveConn) methodTimeLeft(start time.Time) time.Duration {
	timeout := l.broker.opts.ConnectTimeout
	return l.timeLeft(start, timeout, maxMethodTimeouts*timeout)
}

// unansweredError returns the error for an AMQP method that was not answered in time.
func unansweredError(start time.Time) error {
	return fmt.Errorf("RabbitMQ has not answered within %v", time.Since(start).Round(100*time.Millisecond))
}

// call executes do, which calls a synchronous AMQP method. Neither the library nor, in all
// states, RabbitMQ has a timeout for methods, so call also returns when ctx ends,
// methodTimeLeft is 0, RabbitMQ blocks the connection, or the broker is closed. do may then
// still be running: if its time ends without a blockage, the connection is cut, since
// RabbitMQ does not respond to other methods either. abandoned, unless nil, is called if do
// succeeds after call has returned an error.
func (l *liveConn) call(ctx context.Context, do func() error, abandoned func()) error {
	block := l.blockage()
	done := make(chan error, 1)
	start := time.Now()
	limit := time.NewTimer(l.methodTimeLeft(start))
	go func() {
		err := do()
		if err == nil { // the library itself reports some errors
			l.recordAnswer()
		}
		done <- explain(err)
	}()
	var err error
	for err == nil {
		select {
		case err := <-done:
			limit.Stop()
			if err != nil && l.broker.life.Err() != nil {
				return broker.ErrClosed
			}
			return err
		case <-limit.C:
			left := l.methodTimeLeft(start)
			if left <= 0 {
				err = unansweredError(start)
			}
			limit.Reset(left)
		case <-ctx.Done():
			err = context.Cause(ctx)
		case <-block.begun:
			err = block.err()
		case <-l.broker.life.Done():
			err = broker.ErrClosed
		}
	}
	go l.abandon(start, limit, done, abandoned)
	return err
}

// abandon waits for the end of do after call has returned an error, and cuts the connection
// if do takes too long.
func (l *liveConn) abandon(start time.Time, limit *time.Timer, done <-chan error, abandoned func()) {
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
				<-block.over // also closed at the end of the connection
				start = time.Now()
			}
			if left := l.methodTimeLeft(start); left > 0 {
				limit.Reset(left)
				continue
			}
			if l.broker.life.Err() == nil {
				l.broker.log.Warn("RabbitMQ does not answer, closing the connection", "err", unansweredError(start))
			}
			l.cut()
		}
	}
}

// limitWrite limits a write by ctx. If the write has not ended when ctx ends, and RabbitMQ
// answers nothing for a second after that, the connection is cut: RabbitMQ does not
// read from it, and all its writers are blocked. As long as RabbitMQ answers, the write may
// take up to three seconds longer than ctx. The caller must call done after the write.
func (l *liveConn) limitWrite(ctx context.Context) (done func()) {
	const silence, limit = time.Second, 3 * time.Second
	var over atomic.Bool
	stop := context.AfterFunc(ctx, func() {
		start := time.Now()
		var check func()
		check = func() {
			if over.Load() {
				return
			}
			if left := l.timeLeft(start, silence, limit); left > 0 {
				time.AfterFunc(left, check)
				return
			}
			l.cut()
		}
		check()
	})
	return func() {
		over.Store(true)
		stop()
	}
}

// open opens a channel and calls prepare with it. If prepare fails, open closes the channel. If
// RabbitMQ has blocked the connection, open returns [errBlocked]. When open returns an error,
// prepare may still be running (see call), so it must not write to variables that are used then.
func (l *liveConn) open(ctx context.Context, prepare func(*liveConn, *amqp.Channel) error) (*amqp.Channel, error) {
	if block := l.blocked(); block != nil {
		return nil, block.err()
	}
	var ch *amqp.Channel
	err := l.call(ctx, func() (err error) {
		if ch, err = l.Channel(); err != nil {
			return err
		}
		if err = prepare(l, ch); err != nil && !errors.Is(err, errLockSilent) { // for errLockSilent, another goroutine closes it
			ch.Close()
		}
		return err
	}, func() { ch.Close() })
	if err != nil {
		return nil, err
	}
	return ch, nil
}

// closeTimeout bounds the wait until RabbitMQ has confirmed that a channel is closed, and
// other short waits. The channel is not used any more in any case, but unacknowledged
// messages are back in their queue only after the confirmation.
const closeTimeout = time.Second

// closeChannel closes a channel, and waits up to closeTimeout. It reports whether RabbitMQ
// has confirmed that the channel is closed, or it was closed before.
func (l *liveConn) closeChannel(ch *amqp.Channel) bool {
	ctx, cancel := context.WithTimeout(context.Background(), closeTimeout)
	defer cancel()
	return l.call(ctx, ch.Close, nil) == nil
}
