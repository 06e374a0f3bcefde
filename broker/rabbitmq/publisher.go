package rabbitmq

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// appID is the reference's value of property app_id.
const appID = "swpt_stomp"

// Publish opens the inbox for a stream of received messages. It returns an error while
// RabbitMQ blocks the connection. When the stream ends, confirmed is called with the reason,
// unless the stream is ended by the Publisher's Close.
func (b *Broker) Publish(ctx context.Context, confirmed func(n uint64, err error)) (broker.Publisher, error) {
	p, err := b.publish(ctx, confirmed)
	if err != nil {
		return nil, fmt.Errorf("open a stream to RabbitMQ: %w", err)
	}
	return p, nil
}

// publish opens a channel in confirm mode for a stream.
func (b *Broker) publish(ctx context.Context, confirmed func(n uint64, err error)) (*publisher, error) {
	p := &publisher{
		broker:    b,
		confirmed: confirmed,
		headers:   make(amqp.Table),
		inFlight:  make(chan struct{}, b.opts.MaxPending),
		sent:      make(chan pending, b.opts.MaxPending),
		closing:   make(chan struct{}),
		stopping:  make(chan struct{}),
		ended:     make(chan struct{}),
	}
	p.finish = sync.OnceFunc(func() { close(p.closing) })
	p.stop = sync.OnceFunc(func() { p.finish(); close(p.stopping) })
	var err error
	p.live, p.channel, err = b.publishing.open(ctx, func(_ *liveConn, ch *amqp.Channel) error {
		p.returned = ch.NotifyReturn(make(chan amqp.Return, 16))
		p.lost = ch.NotifyClose(make(chan *amqp.Error, 1))
		return explain(ch.Confirm(false))
	})
	if err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		go p.live.closeChannel(p.channel)
		return nil, broker.ErrClosed
	}
	b.publishers[p] = struct{}{}
	go p.run()
	return p, nil
}

// publisher is a stream of messages. Unconfirmed messages are in the channel sent, in order;
// run waits for their confirmations.
type publisher struct {
	broker    *Broker
	live      *liveConn
	channel   *amqp.Channel
	returned  <-chan amqp.Return
	lost      <-chan *amqp.Error
	confirmed func(n uint64, err error)

	writeMu sync.Mutex // locked while a message is written; see closeChannel
	headers amqp.Table // of the message being written

	inFlight chan struct{} // semaphore: has an element for each unconfirmed message
	sent     chan pending

	finish   func()                // closes closing
	stop     func()                // closes closing and stopping
	closing  chan struct{}         // closed when no more messages are accepted
	stopping chan struct{}         // closed when run must not wait for confirmations any more
	muted    atomic.Bool           // confirmed is not called any more
	ended    chan struct{}         // closed when run has returned
	reason   atomic.Pointer[error] // why run has ended; nil before, also if finish or stop has been called

	// Used by run only.
	durable  uint64       // number of confirmed messages
	reported uint64       // number last passed to confirmed
	unrouted *amqp.Return // the first message that RabbitMQ has returned
	sender   string       // the peer that has sent this message, if it has ended the stream
}

// pending is a message that RabbitMQ has not confirmed.
type pending struct {
	message *broker.Incoming
	at      time.Time // when it was published
	answer  *amqp.DeferredConfirmation
}

// Publish submits the next message. It returns [ErrInvalid] for a message that AMQP can
// not carry; such a message is not counted. While RabbitMQ blocks the connection, Publish
// waits, but not longer than ConfirmTimeout.
func (p *publisher) Publish(ctx context.Context, m *broker.Incoming) error {
	if err := checkMessage(m); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case <-p.closing:
		return p.failure()
	default:
	}
	select {
	case p.inFlight <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-p.closing:
		return p.failure()
	}
	if err := p.awaitUnblocked(ctx); err != nil {
		<-p.inFlight
		return err
	}
	if p.write(ctx, m) == nil {
		return nil
	}
	// The channel is closed. run determines the reason.
	select {
	case <-p.closing:
		return p.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitUnblocked waits until RabbitMQ does not block the connection.
func (p *publisher) awaitUnblocked(ctx context.Context) error {
	block := p.live.blocked()
	if block == nil {
		return nil
	}
	t := time.NewTimer(p.broker.opts.ConfirmTimeout)
	defer t.Stop()
	select {
	case <-block.over:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-p.closing:
		return p.failure()
	case <-t.C:
		return block.err()
	}
}

// write publishes a message, and adds it to the pending messages.
func (p *publisher) write(ctx context.Context, m *broker.Incoming) error {
	defer p.live.limitWrite(ctx)()
	p.writeMu.Lock()
	defer p.writeMu.Unlock()
	select {
	case <-p.closing: // the channel may be closed, or about to be closed
		return p.failure()
	default:
	}
	clear(p.headers)
	for _, h := range m.Headers {
		p.headers[h.Name] = h.Value
	}
	answer, err := p.channel.PublishWithDeferredConfirm(m.Exchange, m.RoutingKey, true, false, amqp.Publishing{
		Headers:      p.headers,
		ContentType:  m.ContentType,
		DeliveryMode: amqp.Persistent,
		Type:         m.Type,
		AppId:        appID,
		Body:         m.Body,
	})
	if err != nil {
		return err
	}
	p.sent <- pending{m, time.Now(), answer} // does not block: p.inFlight bounds the number
	return nil
}

// failure returns why no more messages are accepted.
func (p *publisher) failure() error {
	if err := p.reason.Load(); err != nil {
		return *err
	}
	return broker.ErrClosed
}

// run waits for confirmations until the stream ends.
func (p *publisher) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	err := p.awaitConfirmations(timer)
	p.broker.health.recordRefusal(err, p.sender)
	p.reason.Store(&err)
	p.finish()
	go p.closeChannel()
	if !p.muted.Load() {
		p.confirmed(p.durable, err)
	}
	close(p.ended)
}

// closeChannel waits until a message that is being written is complete, which may take as long
// as RabbitMQ does not read, and closes the channel. A message written after the channel is
// closed would end the connection, and all streams on it.
func (p *publisher) closeChannel() {
	p.writeMu.Lock() // wait for the current write; later ones find p.closing closed
	returned := p.returned
	p.writeMu.Unlock()
	if returned != nil {
		go func() {
			for range returned { // otherwise the whole connection would block
			}
		}()
	}
	p.live.closeChannel(p.channel)
}

// awaitConfirmations waits for the confirmations of the pending messages in order, and
// counts them. It returns why the stream has ended.
func (p *publisher) awaitConfirmations(timer *time.Timer) error {
	for {
		next, err := p.next()
		if err != nil {
			return err
		}
		if err := p.await(next, timer); err != nil {
			return err
		}
		p.live.recordAnswer()
		p.durable++
		p.broker.health.recordStored()
		<-p.inFlight
	}
}

// next returns the next pending message, and waits for a message if necessary. It returns an
// error when the stream has ended.
func (p *publisher) next() (pending, error) {
	select {
	case next := <-p.sent:
		return next, nil
	default:
	}
	p.report()
	for {
		select {
		case next := <-p.sent:
			return next, nil
		case r, ok := <-p.returned:
			p.recordReturn(r, ok)
		case e := <-p.lost:
			return pending{}, lostReason(e)
		case <-p.closing:
			select {
			case next := <-p.sent:
				return next, nil
			default:
				return pending{}, broker.ErrClosed
			}
		}
	}
}

// await waits until a message is confirmed. It returns an error if RabbitMQ refuses or
// returns the message, or does not confirm it in time.
func (p *publisher) await(next pending, timer *time.Timer) error {
	select {
	case <-next.answer.Done():
	default:
		p.report()
		timer.Reset(time.Until(next.at.Add(p.broker.opts.ConfirmTimeout)))
		if err := p.awaitLong(next, timer.C); err != nil {
			return err
		}
	}
	if !next.answer.Acked() {
		// Acked also returns false for all messages of a closed channel.
		select {
		case e := <-p.lost:
			return lostReason(e)
		default:
			return fmt.Errorf("%w: RabbitMQ refuses it", errNotConfirmed)
		}
	}
	// RabbitMQ confirms a returned message after the return.
	select {
	case r, ok := <-p.returned:
		p.recordReturn(r, ok)
	default:
	}
	if r := p.unrouted; r != nil && isReturned(next.message, r) {
		p.sender = next.message.Peer
		return fmt.Errorf("%w: exchange %s, routing key %q, from peer %s: RabbitMQ says %s (%d)",
			broker.ErrUnroutable, r.Exchange, r.RoutingKey, p.sender, r.ReplyText, r.ReplyCode)
	}
	return nil
}

// awaitLong waits until RabbitMQ has answered, and receives returned messages meanwhile:
// otherwise the connection would block.
func (p *publisher) awaitLong(next pending, timeout <-chan time.Time) error {
	for {
		select {
		case <-next.answer.Done():
			return nil
		case r, ok := <-p.returned:
			p.recordReturn(r, ok)
		case <-timeout:
			return fmt.Errorf("%w: RabbitMQ has not answered within %v", errNotConfirmed, p.broker.opts.ConfirmTimeout)
		case <-p.stopping:
			return broker.ErrClosed
		}
	}
}

// recordReturn records the first returned message: the stream ends before it.
func (p *publisher) recordReturn(r amqp.Return, ok bool) {
	switch {
	case !ok:
		p.returned = nil // the channel is closed; p.lost has the reason
	case p.unrouted == nil:
		p.unrouted = &r
	}
}

// isReturned reports whether m is the returned message r. RabbitMQ returns messages in the
// order of publishing, so the first message equal to r is r; another equal message can not
// be routed either.
func isReturned(m *broker.Incoming, r *amqp.Return) bool {
	return m.Exchange == r.Exchange && m.RoutingKey == r.RoutingKey && m.Type == r.Type && bytes.Equal(m.Body, r.Body)
}

// lostReason returns why the channel has ended.
func lostReason(e *amqp.Error) error {
	switch {
	case e == nil:
		return explain(amqp.ErrClosed)
	case hasReplyCode(e, amqp.NotFound):
		return fmt.Errorf("%w: %w", broker.ErrUnroutable, explain(e))
	}
	return explain(e)
}

// report calls confirmed if messages were confirmed since its last call.
func (p *publisher) report() {
	if p.durable > p.reported && !p.muted.Load() {
		p.reported = p.durable
		p.confirmed(p.durable, nil)
	}
}

// Close ends the stream without waiting for confirmations. After Close has returned,
// confirmed is not called any more; confirmed must not call Close.
func (p *publisher) Close() error {
	p.muted.Store(true)
	p.stop()
	<-p.ended
	p.broker.mu.Lock()
	defer p.broker.mu.Unlock()
	delete(p.broker.publishers, p)
	return nil
}
