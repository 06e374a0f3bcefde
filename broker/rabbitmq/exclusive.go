package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// lockQueue returns the name of the queue that the process has which consumes a queue.
// It is exclusive: RabbitMQ, or all of its cluster, refuses it to other connections at
// once, and deletes it with its connection, or the machine that this leads to. The queue
// itself can not be the lock: a quorum queue has no exclusive consumers, and goes on
// counting those of a machine that is down.
func lockQueue(queue string) string { return queue + ".lock" }

// CheckInUse reports [broker.ErrInUse] if the queue has a consumer: one of this process, of
// another, or of a connection of which RabbitMQ does not know yet that it is lost. It
// does so, too, if the queue has a consumer without a lock, see [declarer.checkOtherConsumers].
func (b *Broker) CheckInUse(ctx context.Context, queue string) error {
	if err := checkConsumed(queue); err != nil {
		return err
	}
	err := b.onDeclaring(ctx, func(d declarer) error { return d.checkInUse(queue) })
	var e *amqp.Error
	if errors.As(err, &e) && e.Server && e.Recover {
		err = nil // it is Consume that reports, or declares, what is wrong with the queue
	}
	if err != nil {
		return fmt.Errorf("queue %s: %w", queue, err)
	}
	return nil
}

func (d declarer) checkInUse(queue string) error {
	err := d.checkLock(queue)
	if saysCode(err, amqp.ResourceLocked) {
		d.live.broker.forgetOtherConsumers(queue)
		return broker.ErrInUse
	}
	if err != nil {
		return err
	}
	q, _, err := d.passiveDeclare(queue)
	if err != nil {
		return err
	}
	_, err = d.checkOtherConsumers(queue, q.Consumers)
	return err
}

// lockTimeout is how long RabbitMQ may take to say whether a lock is there.
const lockTimeout = 2 * time.Second

// checkLock returns RabbitMQ's answer to a look at the lock of a queue. With Khepri
// (RabbitMQ 4.3) a cluster keeps an exclusive queue of a machine that is down,
// and does not answer as long as that is so. Then checkLock waits for lockTimeout once, and
// reports nothing: the lock is lost with its machine, and can not be had.
func (d declarer) checkLock(queue string) error {
	if d.live.broker.lockIsSilent(queue) {
		return nil
	}
	answer := make(chan error, 1)
	go func() {
		_, _, err := d.passiveDeclare(lockQueue(queue))
		answer <- err
	}()
	late := time.NewTimer(lockTimeout)
	defer late.Stop()
	select {
	case err := <-answer:
		return err
	case <-late.C:
	}
	d.live.broker.setLockSilent(queue, true)
	go func() {
		<-answer // which comes with the end of the connection, too
		d.live.broker.setLockSilent(queue, false)
	}()
	return nil
}

// lockIsSilent reports whether RabbitMQ has not answered yet about the lock of a queue.
func (b *Broker) lockIsSilent(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.silent[queue]
}

// setLockSilent notes whether RabbitMQ answers about the lock of a queue. When it does
// again, consumers without the lock end, and the next ones have it.
func (b *Broker) setLockSilent(queue string, is bool) {
	var without []*consumer
	b.mu.Lock()
	if is {
		b.silent[queue] = true
	} else {
		delete(b.silent, queue)
		for c := range b.consumers {
			if c.queue == queue && !c.withLock {
				without = append(without, c)
			}
		}
	}
	b.mu.Unlock()
	for _, c := range without {
		c.reopen()
	}
}

// forgetTime bounds the wait for a queue to forget a consumer.
const forgetTime = time.Second

// awaitFree waits for a moment until a queue is free. RabbitMQ deletes the lock, and a
// quorum queue forgets the consumer, a little later than the client learns that a
// channel with a consumer is closed.
func (b *Broker) awaitFree(queue string) {
	ctx, cancel := context.WithTimeout(b.life, forgetTime)
	defer cancel()
	for errors.Is(b.CheckInUse(ctx, queue), broker.ErrInUse) {
		if wait.Sleep(ctx, 5*time.Millisecond) != nil {
			return
		}
	}
}

// otherConsumers are consumers of a queue that RabbitMQ counts while nobody has the lock.
type otherConsumers struct{ first, last time.Time } // when they were counted

const (
	// strangerTime is how long strangers keep a quorum queue from being consumed.
	strangerTime = time.Second
	// strangerMemory is how long ago strangers were counted that may be gone since.
	strangerMemory = 30 * time.Second
)

// checkOtherConsumers decides whether consumers without a lock keep others from a queue, in which
// case it reports [broker.ErrInUse]. They are the reference's, and a classic queue is
// theirs as long as they like: RabbitMQ would refuse an exclusive consumer beside them.
// A quorum queue is for some time only: RabbitMQ counts, too, what was on a machine that
// is down. If they are alive nevertheless, RabbitMQ shares the messages out, as it does
// among the reference's own. yield reports whether there are any.
func (d declarer) checkOtherConsumers(queue string, consumers int) (beside bool, err error) {
	b := d.live.broker
	switch {
	case consumers == 0:
		b.forgetOtherConsumers(queue)
		return false, nil
	case d.kind(queue).queueType == Classic, b.noteOtherConsumers(queue) < strangerTime:
		return true, broker.ErrInUse
	}
	return true, nil
}

// noteOtherConsumers returns for how long strangers have been counted.
func (b *Broker) noteOtherConsumers(queue string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, now := b.otherConsumers[queue], time.Now()
	if now.Sub(s.last) > strangerMemory {
		s.first = now
	}
	s.last = now
	b.otherConsumers[queue] = s
	return now.Sub(s.first)
}

func (b *Broker) forgetOtherConsumers(queue string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.otherConsumers, queue)
}

// consumeExclusively starts a consumer that has the queue for itself, by a lock that lasts as
// long as the channel. receive is called when messages begin to arrive; locked is closed
// when the lock is lost, and nil if there is none.
func (d declarer) consumeExclusively(queue string, withLock bool, receive func(deliveries, locked <-chan amqp.Delivery)) error {
	var locked <-chan amqp.Delivery
	if withLock {
		var err error
		if locked, err = d.lockInTime(queue); err != nil {
			return err
		}
	}
	q, err := d.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	if err != nil {
		return explain(err)
	}
	beside, err := d.checkOtherConsumers(queue, q.Consumers)
	if err != nil {
		return err
	}
	const exclusive = true
	deliveries, err := d.ch.Consume(queue, "", false, exclusive, false, false, nil)
	if err != nil {
		return explain(err)
	}
	if beside {
		d.live.broker.log.Warn("RabbitMQ counts another consumer of the queue, which is no peerlink: if it is not lost with a machine, it gets its share of the messages", "queue", queue)
	}
	receive(deliveries, locked)
	return nil
}

// errLockSilent is reported when RabbitMQ does not say whether the lock of a queue can be had.
var errLockSilent = errors.New("RabbitMQ does not answer about the lock of the queue")

// lockInTime is lock, with errLockSilent if that takes longer than lockTimeout: with Mnesia
// (before RabbitMQ 4.3) a cluster waits for a machine that is frozen, a minute or longer. The
// channel is closed when the answer has come.
func (d declarer) lockInTime(queue string) (<-chan amqp.Delivery, error) {
	type result struct {
		locked <-chan amqp.Delivery
		err    error
	}
	results := make(chan result, 1)
	go func() {
		locked, err := d.lock(queue)
		results <- result{locked, err}
	}()
	late := time.NewTimer(lockTimeout)
	defer late.Stop()
	select {
	case r := <-results:
		return r.locked, r.err
	case <-late.C:
	}
	d.live.broker.setLockSilent(queue, true)
	go func() {
		<-results // which comes with the end of the connection, too
		d.ch.Close()
		d.live.broker.setLockSilent(queue, false)
	}()
	return nil, errLockSilent
}

// lock makes the lock queue of a queue. It vanishes with its only consumer, and so when
// the channel is closed; the consumer is refused to other channels of this connection.
// It reports [broker.ErrInUse]. The channel that it returns gets what other processes ask
// for, and is closed when the lock is lost.
func (d declarer) lock(queue string) (<-chan amqp.Delivery, error) {
	const autoDelete, exclusive, autoAck = true, true, true
	name := lockQueue(queue)
	// Without the type, RabbitMQ may take the default, and refuse it.
	_, err := d.ch.QueueDeclare(name, false, autoDelete, exclusive, false, amqp.Table{"x-queue-type": string(Classic)})
	switch {
	case saysCode(err, amqp.ResourceLocked):
		return nil, broker.ErrInUse
	case err != nil:
		return nil, explain(err)
	}
	locked, err := d.ch.Consume(name, "", autoAck, exclusive, false, false, nil)
	switch {
	case err == nil:
		return locked, nil
	case saysCode(err, amqp.NotFound), inExclusiveUse(err): // NotFound: the one before has just let it go
		return nil, broker.ErrInUse
	}
	return nil, explain(err)
}

// consumeError gives RabbitMQ's answer to an attempt to consume the name by which
// callers know it.
func consumeError(err error) error {
	switch {
	case saysCode(err, amqp.NotFound):
		return fmt.Errorf("%w: %w", broker.ErrNoQueue, err)
	case inExclusiveUse(err):
		return fmt.Errorf("%w: %w", broker.ErrInUse, err)
	}
	return err
}

// inExclusiveUse reports whether RabbitMQ refuses a consumer because of another one, and
// not for want of permission: the code is the same.
func inExclusiveUse(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Server && e.Code == amqp.AccessRefused && strings.HasSuffix(e.Reason, " in exclusive use")
}
