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
// process declares. RabbitMQ, or its whole cluster, refuses it to other connections, and
// deletes it together with its connection or the node that hosts the connection. The queue
// itself can not be exclusive: a quorum queue has no exclusive consumers, and continues to
// count consumers on a node that is down.
func lockQueue(queue string) string { return queue + ".lock" }

// CheckInUse reports [broker.ErrInUse] if the queue has a consumer: of this process, of
// another one, or of a lost connection that RabbitMQ has not detected yet. It also does so
// if the queue has a consumer without a lock, see [declarer.checkOtherConsumers].
func (b *Broker) CheckInUse(ctx context.Context, queue string) error {
	if err := checkConsumed(queue); err != nil {
		return err
	}
	err := b.onDeclaring(ctx, func(d declarer) error { return d.checkInUse(queue) })
	var e *amqp.Error
	if errors.As(err, &e) && e.Server && e.Recover {
		err = nil // Consume reports or repairs problems of the queue
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
		d.live.broker.leaveWatch(queue)
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

// lockTimeout bounds RabbitMQ's answer to the question whether a lock exists.
const lockTimeout = 2 * time.Second

// checkLock checks whether the lock of a queue exists. With Khepri (RabbitMQ 4.3), a
// cluster keeps an exclusive queue of a node that is down, and does not answer until that
// node is up. Then checkLock waits for lockTimeout once, and returns nil: nobody holds the
// lock, and it can not be acquired.
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

// lockIsSilent reports whether RabbitMQ has not answered yet about the lock of a queue.
func (b *Broker) lockIsSilent(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.silent[queue]
}

// setLockSilent records whether RabbitMQ answers about the lock of a queue. When it
// answers again, consumers without the lock end, and the next ones acquire it.
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

// forgetTime bounds the wait until a queue has no more consumers.
const forgetTime = time.Second

// awaitFree waits, up to forgetTime, until a queue is not in use. RabbitMQ deletes the
// lock, and a quorum queue removes the consumer, shortly after it has confirmed that the
// channel is closed.
func (b *Broker) awaitFree(queue string) {
	ctx, cancel := context.WithTimeout(b.life, forgetTime)
	defer cancel()
	for errors.Is(b.CheckInUse(ctx, queue), broker.ErrInUse) {
		if wait.Sleep(ctx, 5*time.Millisecond) != nil {
			return
		}
	}
}

// otherConsumers records that a queue has consumers although nobody holds its lock.
type otherConsumers struct{ first, last time.Time } // when they were counted

const (
	// otherConsumersTime is how long consumers without a lock keep a quorum queue from being
	// consumed.
	otherConsumersTime = time.Second
	// otherConsumersMemory is the time between two counts after which the consumers are
	// considered to be different ones.
	otherConsumersMemory = 30 * time.Second
)

// checkOtherConsumers decides whether consumers without a lock keep this process from
// consuming the queue, in which case it reports [broker.ErrInUse]. They belong to the
// reference implementation. They may keep a classic queue for as long as they like:
// RabbitMQ would refuse an exclusive consumer of it. They keep a quorum queue for
// otherConsumersTime only, since RabbitMQ also counts consumers on a node that is down. If they
// are alive nevertheless, RabbitMQ distributes the messages, as among consumers of the
// reference. beside reports whether there are any.
func (d declarer) checkOtherConsumers(queue string, consumers int) (beside bool, err error) {
	b := d.live.broker
	switch {
	case consumers == 0:
		b.forgetOtherConsumers(queue)
		return false, nil
	case d.kind(queue).queueType == Classic, b.noteOtherConsumers(queue) < otherConsumersTime:
		return true, broker.ErrInUse
	}
	return true, nil
}

// noteOtherConsumers returns for how long consumers without a lock have been counted.
func (b *Broker) noteOtherConsumers(queue string) time.Duration {
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

func (b *Broker) forgetOtherConsumers(queue string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.otherConsumers, queue)
}

// consumeExclusively starts the only consumer of a queue, protected by a lock that is held
// as long as the channel is open. receive is called when deliveries begin; locked is
// closed when the lock is lost, and nil if there is none.
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

// errLockSilent is reported if RabbitMQ does not answer whether the lock can be acquired.
var errLockSilent = errors.New("RabbitMQ does not answer about the lock of the queue")

// lockInTime is lock with a timeout: it reports errLockSilent after lockTimeout. With
// Mnesia (before RabbitMQ 4.3), a cluster waits for a node that hangs, for a minute or
// longer. The channel is closed when the answer arrives.
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

// lock acquires the lock of a queue. RabbitMQ deletes the lock queue with its only
// consumer, and so when the channel is closed; it refuses the consumer to other channels
// of this connection. lock reports [broker.ErrInUse]. The channel that it returns receives
// the requests of other processes, and is closed when the lock is lost.
func (d declarer) lock(queue string) (<-chan amqp.Delivery, error) {
	const autoDelete, exclusive, autoAck = true, true, true
	name := lockQueue(queue)
	// Without the type, RabbitMQ may use a default type that it refuses for exclusive
	// queues.
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
	case saysCode(err, amqp.NotFound), inExclusiveUse(err): // NotFound: the previous holder has just released it
		return nil, broker.ErrInUse
	}
	return nil, explain(err)
}

// consumeError adds the matching error of package broker to RabbitMQ's answer to an
// attempt to consume.
func consumeError(err error) error {
	switch {
	case saysCode(err, amqp.NotFound):
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
