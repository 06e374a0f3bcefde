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

// lockQueue returns the name of the lock of a queue: an exclusive queue that the consuming
// process declares (the lock queue). RabbitMQ refuses it to other connections, in
// the whole cluster, and deletes it together with its connection or the node that hosts the
// connection. An exclusive consumer of the queue itself is no substitute: a quorum queue has
// none, and continues to count consumers on a node that is down.
func lockQueue(queue string) string { return queue + ".lock" }

// CheckInUse returns [broker.ErrInUse] if the queue has a consumer: of this process, of
// another process, or of a lost connection whose loss RabbitMQ has not detected yet. If the
// consumer has no lock, as that of the reference implementation, CheckInUse may return nil, as
// checkOtherConsumers does; likewise if RabbitMQ does not answer about the lock.
func (b *Broker) CheckInUse(ctx context.Context, queue string) error {
	if err := checkQueueName(queue); err != nil {
		return err
	}
	err := b.withDeclarer(ctx, func(d declarer) error { return d.checkInUse(queue) })
	var e *amqp.Error
	if errors.As(err, &e) && e.Server && e.Recover {
		err = nil // Consume reports or repairs problems of the queue
	}
	if err != nil {
		return fmt.Errorf("queue %s: %w", queue, err)
	}
	return nil
}

// checkInUse returns [broker.ErrInUse] if a queue has a consumer with a lock, or one without a
// lock because of which checkOtherConsumers returns it.
func (d declarer) checkInUse(queue string) error {
	err := d.checkLock(queue)
	if hasReplyCode(err, amqp.ResourceLocked) {
		d.live.broker.forgetOtherConsumers(queue)
		d.live.broker.resetIfConsumedElsewhere(queue)
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

// lockTimeout bounds the wait for RabbitMQ's answer whether a lock is held.
const lockTimeout = 2 * time.Second

// checkLock returns RabbitMQ's error ResourceLocked if another connection holds the lock of a
// queue, nil if none does, and any other error as it is. With Khepri (RabbitMQ 4.3), a cluster
// keeps an exclusive queue of a node that is down, and does not answer until that node is up.
// Then checkLock waits for lockTimeout once, and returns nil: no process holds the lock, and
// none can acquire it.
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
		<-answer // also received at the end of the connection
		d.live.broker.setLockSilent(queue, false)
	}()
	return nil
}

// lockIsSilent reports whether RabbitMQ does not answer whether the lock of a queue is held.
func (b *Broker) lockIsSilent(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.silentLocks[queue]
}

// setLockSilent sets what lockIsSilent reports. If silent is false, as RabbitMQ has answered, it
// also makes consumers without the lock end, so that the next ones acquire the lock.
func (b *Broker) setLockSilent(queue string, silent bool) {
	var without []*consumer
	b.mu.Lock()
	if silent {
		b.silentLocks[queue] = true
	} else {
		delete(b.silentLocks, queue)
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

// releaseTime bounds the wait until a queue has no more consumers.
const releaseTime = time.Second

// awaitFree waits, up to releaseTime, until a queue is not in use. RabbitMQ deletes the
// lock, and a quorum queue removes the consumer, shortly after it has confirmed that the
// channel is closed.
func (b *Broker) awaitFree(queue string) {
	ctx, cancel := context.WithTimeout(b.life, releaseTime)
	defer cancel()
	for errors.Is(b.CheckInUse(ctx, queue), broker.ErrInUse) {
		if wait.Sleep(ctx, 5*time.Millisecond) != nil {
			return
		}
	}
}

// otherConsumers records when RabbitMQ has counted consumers of a queue that do not hold its
// lock, for the first and for the last time.
type otherConsumers struct{ first, last time.Time }

const (
	// otherConsumersTime is how long consumers without a lock keep a quorum queue from being
	// consumed.
	otherConsumersTime = time.Second
	// otherConsumersMemory is the time between two counts after which the consumers are
	// considered to be different ones.
	otherConsumersMemory = 30 * time.Second
)

// checkOtherConsumers decides whether this process may consume a queue that has consumers
// without a lock, which belong to the reference implementation; consumers is their number.
// If not, it returns [broker.ErrInUse]: for a classic queue always, since RabbitMQ would
// refuse an exclusive consumer; for a quorum queue only until they have been counted for
// otherConsumersTime, since RabbitMQ also counts consumers on a node that is down. If they
// still exist nevertheless, RabbitMQ distributes the messages among all consumers, as among
// those of the reference. exist reports whether there are any.
func (d declarer) checkOtherConsumers(queue string, consumers int) (exist bool, err error) {
	b := d.live.broker
	switch {
	case consumers == 0:
		b.forgetOtherConsumers(queue)
		return false, nil
	case d.kind(queue).queueType == Classic, b.recordOtherConsumers(queue) < otherConsumersTime:
		return true, broker.ErrInUse
	}
	return true, nil
}

// recordOtherConsumers records that a queue has consumers without a lock, and returns for how
// long such consumers have been counted.
func (b *Broker) recordOtherConsumers(queue string) time.Duration {
	b.mu.Lock()
	defer b.mu.Unlock()
	s, now := b.otherConsumers[queue], time.Now()
	if now.Sub(s.last) > otherConsumersMemory {
		s.first = now
	}
	s.last = now
	b.otherConsumers[queue] = s
	return now.Sub(s.first)
}

// forgetOtherConsumers removes the record that a queue has consumers without a lock.
func (b *Broker) forgetOtherConsumers(queue string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.otherConsumers, queue)
}

// consumeExclusively starts a consumer of a queue and calls receive with its deliveries.
// withLock is whether it acquires the lock of the queue before, which it holds as long as
// the channel is open; locked then receives the messages of the lock queue and is closed
// when the lock is lost, and otherwise is nil.
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
	hasOthers, err := d.checkOtherConsumers(queue, q.Consumers)
	if err != nil {
		return err
	}
	const exclusive = true
	deliveries, err := d.ch.Consume(queue, "", false, exclusive, false, false, nil)
	if err != nil {
		return explain(err)
	}
	if hasOthers {
		d.live.broker.log.Warn("the queue has another consumer in RabbitMQ, which is not peerlink: unless that is on a machine that is down, it receives some of the messages", "queue", queue)
	}
	receive(deliveries, locked)
	return nil
}

// errLockSilent is returned if RabbitMQ does not answer whether the lock is held.
var errLockSilent = errors.New("RabbitMQ does not answer about the lock of the queue")

// lockInTime is lock with a timeout: it returns errLockSilent after lockTimeout, and closes
// the channel when the answer arrives. With Mnesia (before RabbitMQ 4.3), a cluster waits for
// a node that hangs, for a minute or longer.
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
		<-results // also received at the end of the connection
		d.ch.Close()
		d.live.broker.setLockSilent(queue, false)
	}()
	return nil, errLockSilent
}

// lock acquires the lock of a queue, or returns [broker.ErrInUse]: it declares the lock queue
// and consumes it. RabbitMQ deletes the lock queue when its only consumer ends, and so when
// the channel is closed; it refuses another consumer to other channels of this connection.
// The Go channel that lock returns receives what other processes publish to the lock queue,
// and is closed when the lock is lost.
func (d declarer) lock(queue string) (<-chan amqp.Delivery, error) {
	const autoDelete, exclusive, autoAck = true, true, true
	name := lockQueue(queue)
	// Without the type, RabbitMQ may use a default type that it refuses for exclusive
	// queues.
	_, err := d.ch.QueueDeclare(name, false, autoDelete, exclusive, false, amqp.Table{"x-queue-type": string(Classic)})
	switch {
	case hasReplyCode(err, amqp.ResourceLocked):
		return nil, broker.ErrInUse
	case err != nil:
		return nil, explain(err)
	}
	locked, err := d.ch.Consume(name, "", autoAck, exclusive, false, false, nil)
	switch {
	case err == nil:
		return locked, nil
	case hasReplyCode(err, amqp.NotFound), inExclusiveUse(err): // NotFound: the previous holder has just released it
		return nil, broker.ErrInUse
	}
	return nil, explain(err)
}

// consumeError adds the matching error of package broker to RabbitMQ's answer to an attempt
// to consume a queue.
func consumeError(err error) error {
	switch {
	case hasReplyCode(err, amqp.NotFound):
		return fmt.Errorf("%w: %w", broker.ErrNoQueue, err)
	case inExclusiveUse(err):
		return fmt.Errorf("%w: %w", broker.ErrInUse, err)
	}
	return err
}

// inExclusiveUse reports whether RabbitMQ refuses a consumer because of another consumer,
// and not because of missing permissions: the reply code is the same.
func inExclusiveUse(err error) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Server && e.Code == amqp.AccessRefused && strings.HasSuffix(e.Reason, " in exclusive use")
}
