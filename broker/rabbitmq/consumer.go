package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// errGone is returned when RabbitMQ has cancelled the consumer of a queue or of its lock, or
// routes a copy of a message to no queue.
var errGone = errors.New("the queue was deleted from RabbitMQ, or is moving to another machine")

// Consume opens a queue for exclusive consuming (consume has the exceptions). If the queue does
// not exist any more, or the connection to RabbitMQ was lost, since Bind of this process, the
// queue and its bindings are declared again.
// Consume fails while RabbitMQ blocks publishing and messages of the queue have to be replaced
// by copies; see replacer.
func (b *Broker) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	if err := checkQueueName(queue); err != nil {
		return nil, err
	}
	if err := b.checkCanReplace(queue); err != nil {
		return nil, fmt.Errorf("consume queue %s: %w", queue, err)
	}
	c, err := b.consume(ctx, queue)
	if hasReplyCode(err, amqp.NotFound) {
		switch declared, failed := b.redeclareFor(ctx, queue, anyEpoch); {
		case failed != nil:
			err = failed
		case declared:
			b.log.Warn("queue has vanished from RabbitMQ, it was declared again", "queue", queue)
			c, err = b.consume(ctx, queue)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("consume queue %s: %w", queue, consumeError(err))
	}
	b.restoreBindings(ctx, queue)
	return c, nil
}

// consume returns a consumer with the lock of the queue, or without a lock if the lock cannot
// be acquired because the node of the cluster that hosts it is down, or because RabbitMQ's
// permissions allow only the reference's objects, which include no locks.
func (b *Broker) consume(ctx context.Context, queue string) (*consumer, error) {
	var c *consumer
	err := errLockSilent
	if !b.lockIsSilent(queue) {
		c, err = b.tryConsume(ctx, queue, true)
	}
	if errors.Is(err, errLockSilent) {
		if c, err = b.tryConsume(ctx, queue, false); err == nil {
			b.log.Warn("the lock of the queue can not be acquired, because a node of the RabbitMQ cluster does not answer: until it does, several processes may share the messages of the queue", "queue", queue)
		}
		return c, err
	}
	if !hasReplyCode(err, amqp.AccessRefused) || inExclusiveUse(err) {
		return c, err
	}
	refusal := err
	if c, err = b.tryConsume(ctx, queue, false); err == nil {
		b.log.Warn("nothing prevents two processes from sending from the queue at once, see the user's permissions in RabbitMQ", "queue", queue, "err", refusal)
	}
	return c, err
}

// tryConsume makes one attempt to open a consumer, with or without the lock of the queue.
func (b *Broker) tryConsume(ctx context.Context, queue string, withLock bool) (*consumer, error) {
	c := &consumer{
		broker:      b,
		queue:       queue,
		withLock:    withLock,
		deadLetters: newDeadLetterPublisher(b, queue),
		unacked:     newUnacked(),
		arrived:     wait.NewSignal(),
		due:         wait.NewSignal(),
		requests:    make(chan int, 1),
		ended:       make(chan struct{}),
	}
	c.window.prefetch, c.window.excludedBefore = b.prefetchOf(queue)
	c.life, c.stop = context.WithCancel(b.life)
	c.replacer = replacer{consumer: c, to: queuePublisher{broker: b, queue: queue}, due: wait.NewSignal(), done: wait.NewSignal()}
	_, _, err := b.consuming.open(ctx, func(l *liveConn, ch *amqp.Channel) error {
		c.live = l
		c.cancelled = ch.NotifyCancel(make(chan string, 2)) // for the queue and its lock
		c.lost = ch.NotifyClose(make(chan *amqp.Error, 1))
		if err := ch.Qos(c.window.total(), 0, false); err != nil {
			return explain(err)
		}
		d := declarer{live: l, ch: ch}
		return d.consumeExclusively(queue, withLock, func(deliveries, locked <-chan amqp.Delivery) {
			c.channel = ch
			go c.run(deliveries, locked)
		})
	})
	if err != nil {
		c.stop()
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.closed {
		c.stop()
		go func() {
			c.awaitEnd() // acknowledgements on a closed channel would end the connection
			c.live.closeChannel(c.channel)
		}()
		return nil, broker.ErrClosed
	}
	b.consumers[c] = struct{}{}
	go c.replacer.run()
	return c, nil
}

// consumer implements [broker.Consumer] with an AMQP channel of its own.
type consumer struct {
	broker      *Broker
	queue       string
	live        *liveConn
	channel     *amqp.Channel
	cancelled   <-chan string      // receives when RabbitMQ cancels the consumer of the queue or of its lock
	lost        <-chan *amqp.Error // receives why the channel has ended
	deadLetters deadLetterPublisher
	replacer    replacer
	window      window
	requests    chan int // see QueueRequests
	withLock    bool     // this consumer holds the queue's lock

	mu      sync.Mutex
	unacked unacked
	err     error // why run has ended; valid once ended is closed

	arrived wait.Signal        // messages can be delivered
	due     wait.Signal        // acknowledgements may be due
	life    context.Context    // cancelled when the consumer is closed
	stop    context.CancelFunc // cancels life; run then sends the acknowledgements that are due
	ended   chan struct{}      // closed when run has returned
}

// run receives messages and sends acknowledgements.
func (c *consumer) run(deliveries, locked <-chan amqp.Delivery) {
	err := c.receiveAll(deliveries, locked)
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	close(c.ended)
}

// ackPause is the minimum interval between bursts of acknowledgements. When about 30
// commands of a channel are not yet replicated, a quorum queue buffers further ones, and
// discards them when the channel is closed.
const ackPause = 5 * time.Millisecond

// receiveAll receives messages and sends acknowledgements until the consumer ends, and
// returns the reason. locked receives the messages of the lock queue, and is closed when the
// lock is lost.
func (c *consumer) receiveAll(deliveries, locked <-chan amqp.Delivery) error {
	due := c.due // nil during the pause
	pause := time.NewTimer(ackPause)
	defer pause.Stop()
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return c.reason()
			}
			c.live.recordAnswer()
			if err := c.catchUp(d, locked); err != nil {
				return err
			}
			if err := c.receive(d); err != nil {
				return err
			}
		case d, ok := <-locked:
			if !ok {
				return c.reason()
			}
			c.receiveFromLock(d)
		case <-due:
			if err := c.acknowledge(ackBurst); err != nil {
				return err
			}
			if err := c.checkReopen(); err != nil {
				return err
			}
			due = nil
			pause.Reset(ackPause)
		case <-pause.C:
			due = c.due
		case <-c.life.Done():
			_ = c.acknowledge(math.MaxInt) // on error the messages are delivered again
			return broker.ErrClosed
		}
	}
}

// receive records a delivery, which is then returned by Next, replaced by a copy, or left
// unacknowledged, so that the next consumer gets it.
func (c *consumer) receive(d amqp.Delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.window.accept(d, &c.unacked, c.broker.opts.Prefetch) {
		return c.unacked.discard(d)
	}
	if err := c.unacked.add(d); err != nil {
		return err
	}
	if c.replacer.addIfNeeded(d) {
		c.unacked.startMoveOfLast()
	}
	c.arrived.Notify()
	return nil
}

// reopen makes the consumer end with [broker.ErrReopen] as soon as all its deliveries are
// confirmed or excluded.
func (c *consumer) reopen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.window.nextPrefetch == 0 {
		c.window.nextPrefetch = c.window.prefetch // accept no more deliveries
	}
	c.due.Notify()
}

// checkReopen returns [broker.ErrReopen], which ends the consumer, if the queue is to be
// opened anew, because reopen was called or the prefetch count is to change, and the consumer
// holds no more messages, except excluded ones.
func (c *consumer) checkReopen() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.window.mustReopen(&c.unacked) {
		return nil
	}
	c.window.reopening = true
	c.broker.setPrefetch(c.queue, cmp.Or(c.window.nextPrefetch, c.window.prefetch))
	return broker.ErrReopen
}

// acknowledge sends up to limit of the acknowledgements that are due. Further ones are sent
// after the pause.
func (c *consumer) acknowledge(limit int) error {
	for range limit {
		c.mu.Lock()
		tag, multiple, ok := c.unacked.nextAck()
		c.mu.Unlock()
		if !ok {
			return nil
		}
		if err := c.channel.Ack(tag, multiple); err != nil {
			return c.reason()
		}
	}
	c.due.Notify()
	return nil
}

// reason returns why RabbitMQ sends no more messages.
func (c *consumer) reason() error {
	if c.life.Err() != nil {
		return broker.ErrClosed
	}
	select {
	case _, ok := <-c.cancelled:
		if ok {
			return errGone
		}
	default:
	}
	select {
	case e := <-c.lost:
		if e != nil {
			return explain(e)
		}
	default:
	}
	return explain(amqp.ErrClosed)
}

// Next waits for messages that were not delivered yet, and returns up to limit of them. When
// the connection is lost, Next returns an error even if messages have arrived before:
// RabbitMQ will deliver them again.
func (c *consumer) Next(ctx context.Context, limit int) ([]broker.Delivery, error) {
	if limit < 1 {
		return nil, fmt.Errorf("%w: %d messages requested, expected at least 1", ErrInvalid, limit)
	}
	for {
		if err := c.failure(); err != nil {
			return nil, err
		}
		c.mu.Lock()
		delivered := c.unacked.deliver(limit)
		more := c.unacked.waiting()
		c.mu.Unlock()
		if more {
			c.arrived.Notify() // for another waiting call of Next
		}
		if delivered != nil {
			return delivered, nil
		}
		select {
		case <-c.arrived:
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-c.life.Done():
		case <-c.ended:
		}
	}
}

// failure returns why the consumer has ended, or nil.
func (c *consumer) failure() error {
	if c.life.Err() != nil {
		return broker.ErrClosed
	}
	select {
	case <-c.ended:
	default:
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if errors.Is(c.err, broker.ErrClosed) {
		return c.err
	}
	return fmt.Errorf("queue %s: %w", c.queue, c.err)
}

// Confirm removes the delivery with this tag and all earlier deliveries, except the
// excluded ones. It returns an error for a tag that was not delivered yet, and nil for a
// tag that was confirmed already.
func (c *consumer) Confirm(tag uint64) error {
	if err := c.failure(); err != nil {
		return err
	}
	c.mu.Lock()
	err := c.unacked.confirm(tag)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("confirm message %d of queue %s: %w", tag, c.queue, err)
	}
	c.due.Notify()
	return nil
}

// Exclude excludes one delivery from later confirmations. It returns an error for a message
// that was not delivered, or was confirmed already, and [broker.ErrTooManyExcluded] if the
// excluded deliveries would be larger than maxExcludedBytes.
func (c *consumer) Exclude(tag uint64) error {
	err := c.failure()
	if err == nil {
		c.mu.Lock()
		if err = c.unacked.excludeWithin(tag, maxExcludedBytes); err == nil {
			c.window.recordExcluded(&c.unacked)
		}
		c.mu.Unlock()
		c.due.Notify() // the queue may have to be opened anew
	}
	if err != nil {
		return fmt.Errorf("exclude message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// DeadLetter moves one delivery to the queue's dead-letter queue. It returns an error for a
// message that was not delivered, or was confirmed already. Later confirmations do not
// remove the message before RabbitMQ has confirmed the copy.
func (c *consumer) DeadLetter(ctx context.Context, tag uint64, reason string) error {
	err := c.failure()
	if err == nil {
		err = c.deadLetter(ctx, tag, reason)
	}
	if err != nil {
		return fmt.Errorf("dead-letter message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

func (c *consumer) deadLetter(ctx context.Context, tag uint64, reason string) error {
	c.mu.Lock()
	d, err := amqp.Delivery{}, broker.ErrReopen
	if c.window.allowsMove(&c.unacked) {
		d, err = c.unacked.startMove(tag)
	}
	c.mu.Unlock()
	if err != nil {
		c.due.Notify() // the consumer may have to end now
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(broker.ErrClosed) })()
	err = c.deadLetters.publish(ctx, d, reason, c.failure)
	c.mu.Lock()
	c.unacked.finishMove(tag, err == nil)
	c.mu.Unlock()
	c.due.Notify()
	return err
}

// Close returns unconfirmed messages to the queue. RabbitMQ does not confirm
// acknowledgements: if it fails at this moment, confirmed messages may be delivered again.
func (c *consumer) Close() error {
	c.replacer.finish()
	c.stop()
	c.awaitEnd()
	c.mu.Lock()
	excluded := c.window.excludedAtEnd(&c.unacked)
	c.mu.Unlock()
	b := c.broker
	b.mu.Lock()
	_, open := b.consumers[c]
	delete(b.consumers, c)
	b.setExcluded(c.queue, excluded)
	b.mu.Unlock()
	if open {
		closed := c.live.closeChannel(c.channel)
		c.deadLetters.close()
		if closed && (errors.Is(c.err, broker.ErrClosed) || errors.Is(c.err, broker.ErrReopen)) { // and the connection was not lost
			b.awaitFree(c.queue)
		}
	}
	return nil
}

// awaitEnd waits until run has returned. If that takes longer than closeTimeout, because
// RabbitMQ does not read the acknowledgements, the connection is cut.
func (c *consumer) awaitEnd() {
	defer time.AfterFunc(closeTimeout, c.live.cut).Stop()
	<-c.ended
}

// prefetchOf returns the prefetch count for a queue, without the addition for excluded messages,
// and what the last consumer has left excluded.
func (b *Broker) prefetchOf(queue string) (int, excludedSize) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, known := b.prefetch[queue]; known {
		return n, b.excluded[queue]
	}
	return b.opts.Prefetch, b.excluded[queue]
}

// setExcluded records what a consumer of a queue leaves excluded at its end. The caller holds b.mu.
func (b *Broker) setExcluded(queue string, n excludedSize) {
	if b.excluded[queue] = n; n.count == 0 {
		delete(b.excluded, queue)
	}
}

func (b *Broker) setPrefetch(queue string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.prefetch[queue] = n; n == b.opts.Prefetch {
		delete(b.prefetch, queue)
	}
}
