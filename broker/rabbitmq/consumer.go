package rabbitmq

import (
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

// errGone ends a consumer that RabbitMQ has cancelled.
var errGone = errors.New("RabbitMQ has ended the delivery: the queue was deleted, or is moving to another machine")

// Consume opens a queue for taking messages out, for itself alone. If the queue
// has vanished since Declare, or RabbitMQ was lost since, it is declared again.
func (b *Broker) Consume(ctx context.Context, queue string) (broker.Consumer, error) {
	if err := checkConsumed(queue); err != nil {
		return nil, err
	}
	c, err := b.consume(ctx, queue)
	if saysCode(err, amqp.NotFound) {
		switch there, failed := b.declareAgain(ctx, queue, whenever); {
		case failed != nil:
			err = failed
		case there:
			b.log.Warn("queue has vanished from RabbitMQ, it was declared again", "queue", queue)
			c, err = b.consume(ctx, queue)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("consume queue %s: %w", queue, consumeError(err))
	}
	b.restore(ctx, queue)
	return c, nil
}

// consume makes a consumer, even if it can have no lock: because that is lost with a
// machine, or because RabbitMQ's permissions are meant for the reference, which has none.
func (b *Broker) consume(ctx context.Context, queue string) (*consumer, error) {
	var c *consumer
	err := errLockSilent
	if !b.lockIsSilent(queue) {
		c, err = b.tryConsume(ctx, queue, true)
	}
	if errors.Is(err, errLockSilent) {
		if c, err = b.tryConsume(ctx, queue, false); err == nil {
			b.log.Warn("the lock of the queue can not be had, a machine of the RabbitMQ cluster does not answer: until it does, several processes may share the messages of the queue", "queue", queue)
		}
		return c, err
	}
	if !saysCode(err, amqp.AccessRefused) || inExclusiveUse(err) {
		return c, err
	}
	refusal := err
	if c, err = b.tryConsume(ctx, queue, false); err == nil {
		b.log.Warn("nothing prevents two processes from sending from the queue at once, see the user's permissions in RabbitMQ", "queue", queue, "err", refusal)
	}
	return c, err
}

func (b *Broker) tryConsume(ctx context.Context, queue string, withLock bool) (*consumer, error) {
	c := &consumer{
		broker:   b,
		queue:    queue,
		withLock: withLock,
		aside:    newAside(b, queue),
		ledger:   newUnacked(),
		arrived:  wait.NewSignal(),
		due:      wait.NewSignal(),
		asked:    make(chan int, 1),
		ended:    make(chan struct{}),
	}
	c.window.prefetch = b.prefetchOf(queue)
	c.life, c.stop = context.WithCancel(b.life)
	c.renewals = renewals{c: c, to: queuePublisher{broker: b, queue: queue}, due: wait.NewSignal(), done: wait.NewSignal()}
	var err error
	c.live, _, err = b.consuming.open(ctx, func(l *liveConn, ch *amqp.Channel) error {
		c.cancelled = ch.NotifyCancel(make(chan string, 2)) // of the queue and its lock
		c.lost = ch.NotifyClose(make(chan *amqp.Error, 1))
		if err := ch.Qos(c.window.prefetch, 0, false); err != nil {
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
			c.awaitEnd() // acknowledgements after the channel is closed would cost the connection
			c.live.closeChannel(c.channel)
		}()
		return nil, broker.ErrClosed
	}
	b.consumers[c] = struct{}{}
	go c.renewals.run()
	return c, nil
}

type consumer struct {
	broker    *Broker
	queue     string
	live      *liveConn
	channel   *amqp.Channel
	cancelled <-chan string
	lost      <-chan *amqp.Error
	aside     aside
	renewals  renewals
	window    window
	asked     chan int // see Asked
	withLock  bool     // it has the lock of the queue

	mu     sync.Mutex
	ledger unacked
	err    error // why it has ended

	arrived wait.Signal        // something can be given out
	due     wait.Signal        // something may have to be acknowledged
	life    context.Context    // ends when the consumer is closed
	stop    context.CancelFunc // ends it; run sends the acknowledgements that are due
	ended   chan struct{}      // closed when run has ended
}

// run receives messages and sends acknowledgements.
func (c *consumer) run(deliveries, locked <-chan amqp.Delivery) {
	err := c.move(deliveries, locked)
	c.mu.Lock()
	c.err = err
	c.mu.Unlock()
	close(c.ended)
}

// ackPause is the least time between two acknowledgements. A quorum queue
// holds back what comes while some 30 commands of a channel are on their way
// to the machines of the cluster, and forgets it when the channel is closed.
const ackPause = 5 * time.Millisecond

// move returns why there is nothing more to receive. locked is closed when the lock of the
// queue is lost.
func (c *consumer) move(deliveries, locked <-chan amqp.Delivery) error {
	due := c.due // or nil during the pause
	pause := time.NewTimer(ackPause)
	defer pause.Stop()
	for {
		select {
		case d, ok := <-deliveries:
			if !ok {
				return c.reason()
			}
			c.catchUp(d, locked)
			if err := c.receive(d); err != nil {
				return err
			}
		case d, ok := <-locked:
			if !ok {
				return c.reason()
			}
			c.note(d)
		case <-due:
			if err := c.acknowledge(ackBurst); err != nil {
				return err
			}
			if err := c.resize(); err != nil {
				return err
			}
			due = nil
			pause.Reset(ackPause)
		case <-pause.C:
			due = c.due
		case <-c.life.Done():
			_ = c.acknowledge(math.MaxInt) // at worst they are given out again
			return broker.ErrClosed
		}
	}
}

// receive enters what has arrived.
func (c *consumer) receive(d amqp.Delivery) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.window.takes(d, &c.ledger, c.broker.opts.Prefetch) {
		return c.ledger.drop(d)
	}
	if err := c.ledger.add(d); err != nil {
		return err
	}
	if c.renewals.renews(d) {
		c.ledger.excludeLast(d.DeliveryTag)
	}
	c.arrived.Notify()
	return nil
}

// reopen makes the consumer end with [broker.ErrReopen] as soon as all it has given out is
// confirmed.
func (c *consumer) reopen() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.window.next == 0 {
		c.window.next = c.window.prefetch // it takes no more
	}
	c.due.Notify()
}

// resize ends the consumer when the next one is to have another window, and this one
// has nothing left.
func (c *consumer) resize() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.window.resized(&c.ledger) {
		return nil
	}
	c.broker.setPrefetch(c.queue, c.window.next)
	return broker.ErrReopen
}

// acknowledge sends the acknowledgements that are due. If there are many, it
// leaves some for after the pause.
func (c *consumer) acknowledge(most int) error {
	for range most {
		c.mu.Lock()
		tag, multiple, ok := c.ledger.nextAck()
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

// Next waits for messages that have not been given out, and returns up to max
// of them. When the connection is lost, it reports that, and not what has
// arrived before: RabbitMQ will deliver it again.
func (c *consumer) Next(ctx context.Context, max int) ([]broker.Delivery, error) {
	if max < 1 {
		return nil, fmt.Errorf("%w: %d messages wanted, expected at least 1", ErrInvalid, max)
	}
	for {
		if err := c.failure(); err != nil {
			return nil, err
		}
		c.mu.Lock()
		out := c.ledger.deliver(max)
		more := c.ledger.waiting()
		c.mu.Unlock()
		if more {
			c.arrived.Notify() // for another Next that waits
		}
		if out != nil {
			return out, nil
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

// failure returns why the consumer is of no use any more, or nil.
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

// Confirm removes the delivery with this tag and all given out before it. It
// reports [ErrNotGivenOut] for a tag that is still to come; one that has been
// confirmed already is no error.
func (c *consumer) Confirm(tag uint64) error {
	if err := c.failure(); err != nil {
		return err
	}
	c.mu.Lock()
	err := c.ledger.confirm(tag)
	c.mu.Unlock()
	if err != nil {
		return fmt.Errorf("confirm message %d of queue %s: %w", tag, c.queue, err)
	}
	c.due.Notify()
	return nil
}

// Exclude excludes one delivery from later confirmations. It reports
// [ErrNotGivenOut] for a message that was not given out, or is not there any
// more.
func (c *consumer) Exclude(tag uint64) error {
	err := c.failure()
	if err == nil {
		c.mu.Lock()
		err = c.ledger.exclude(tag)
		c.mu.Unlock()
	}
	if err != nil {
		return fmt.Errorf("keep message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

// DeadLetter moves one delivery to the queue's dead-letter queue. It reports
// [ErrNotGivenOut] for a message that was not given out, or is not there any
// more. A confirmation does not remove the message before it is safe there.
func (c *consumer) DeadLetter(ctx context.Context, tag uint64, reason string) error {
	err := c.failure()
	if err == nil {
		err = c.setAside(ctx, tag, reason)
	}
	if err != nil {
		return fmt.Errorf("set aside message %d of queue %s: %w", tag, c.queue, err)
	}
	return nil
}

func (c *consumer) setAside(ctx context.Context, tag uint64, reason string) error {
	c.mu.Lock()
	d, err := c.ledger.startDeadLetter(tag)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(c.life, func() { cancel(broker.ErrClosed) })()
	err = c.aside.put(ctx, d, reason)
	c.mu.Lock()
	c.ledger.finishDeadLetter(tag, err == nil)
	c.mu.Unlock()
	c.due.Notify()
	return err
}

// Close gives what is not confirmed back to the queue. RabbitMQ does not answer
// acknowledgements: if it fails at this moment, confirmed messages may be given
// out again.
func (c *consumer) Close() error {
	c.renewals.finish()
	c.stop()
	c.awaitEnd()
	b := c.broker
	b.mu.Lock()
	_, open := b.consumers[c]
	delete(b.consumers, c)
	b.mu.Unlock()
	if open {
		closed := c.live.closeChannel(c.channel)
		c.aside.close()
		if closed && (errors.Is(c.err, broker.ErrClosed) || errors.Is(c.err, broker.ErrReopen)) { // and not by the end of the connection
			b.awaitFree(c.queue)
		}
	}
	return nil
}

// awaitEnd waits until run has ended. RabbitMQ may not read its acknowledgements.
func (c *consumer) awaitEnd() {
	defer time.AfterFunc(patience, c.live.cut).Stop()
	<-c.ended
}

// prefetchOf returns how many messages of a queue RabbitMQ is to send ahead.
func (b *Broker) prefetchOf(queue string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	if n, known := b.prefetch[queue]; known {
		return n
	}
	return b.opts.Prefetch
}

func (b *Broker) setPrefetch(queue string, n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.prefetch[queue] = n; n == b.opts.Prefetch {
		delete(b.prefetch, queue)
	}
}
