package local

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"peerlink/broker/embedded"
	"peerlink/stomp"
)

// subscriptionKey identifies a subscription on its connection: by its id, or by its destination
// if the client has given no id, as STOMP 1.0 allows. The other field is empty.
type subscriptionKey struct{ id, destination string }

// name returns what the frames of the subscription contain.
func (k subscriptionKey) name() string { return cmp.Or(k.id, k.destination) }

// subscribeOptions are the options of a SUBSCRIBE.
type subscribeOptions struct {
	key      subscriptionKey
	copies   bool // of received messages; otherwise the inbox itself
	ack      AckMode
	prefetch int // 0: as many as the connection may have
}

// subscription delivers messages of the inbox, or copies of them, to the client.
type subscription struct {
	subscribeOptions
	cancel context.CancelFunc
	done   chan struct{} // closed when delivery has ended, and unacknowledged messages have been returned to the inbox

	// Nil for copies.
	source  *embedded.Subscription
	unacked *unacked

	mu       sync.Mutex
	stopped  bool
	requeues []requeue   // messages to be returned to the inbox, in the order of their times
	timer    *time.Timer // calls requeueDue; nil if requeues is empty
}

// requeue is a NACK: its messages are to be returned to the inbox.
type requeue struct {
	due  time.Time
	seqs []uint64
}

// addSubscription starts a subscription.
func (s *session) addSubscription(o subscribeOptions) error {
	ctx, cancel := context.WithCancel(s.opCtx)
	sub := &subscription{
		subscribeOptions: o,
		cancel:           cancel,
		done:             make(chan struct{}),
	}
	if err := s.register(sub); err != nil {
		cancel()
		return err
	}
	store, inbox := s.door.store, s.door.destinations.inbox
	if o.copies {
		watcher := store.Watch(inbox)
		go sub.run(ctx, s, watcher.Close, func() error { return s.deliverCopies(ctx, sub, watcher) })
		return nil
	}
	sub.source, sub.unacked = store.Subscribe(inbox), newUnacked(sub.prefetch)
	go sub.run(ctx, s, sub.source.Close, func() error { return s.deliver(ctx, sub) })
	return nil
}

// register adds a subscription if the bounds allow it, and sets its prefetch if that is 0.
func (s *session) register(sub *subscription) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if sub.prefetch == 0 {
		sub.prefetch = max(min(maxPrefetch, s.door.bounds.prefetch-s.prefetch), 1)
	}
	switch {
	case s.end != nil:
		return refusef("SUBSCRIBE: the session has ended")
	case s.subscriptions[sub.key] != nil && sub.key.id == "":
		return refusef("SUBSCRIBE without id to %q, which another subscription of this connection has", sub.key.destination)
	case s.subscriptions[sub.key] != nil:
		return refusef("SUBSCRIBE with id %q, which another subscription of this connection has", sub.key.id)
	case len(s.subscriptions) == s.door.bounds.subscriptions:
		return refusef("SUBSCRIBE: this connection has %d subscriptions, which is the limit", len(s.subscriptions))
	case s.prefetch+sub.prefetch > s.door.bounds.prefetch:
		return refusef("SUBSCRIBE with prefetch-count %d: the prefetch-counts of a connection's subscriptions may be %d together, and %d are taken",
			sub.prefetch, s.door.bounds.prefetch, s.prefetch)
	}
	s.subscriptions[sub.key] = sub
	s.prefetch += sub.prefetch
	return nil
}

// removeSubscription ends a subscription, waits until its unacknowledged messages are
// returned to the inbox, and returns it.
func (s *session) removeSubscription(key subscriptionKey) (*subscription, error) {
	sub := s.subscription(key)
	if sub == nil {
		return nil, refusef("UNSUBSCRIBE of %.100q: this connection has no such subscription", key.name())
	}
	sub.stop()
	<-sub.done
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.subscriptions, key)
	s.prefetch -= sub.prefetch
	return sub, nil
}

// unsubscribeAll ends all subscriptions, after the session has begun to end, and waits until
// their unacknowledged messages are returned to the inbox.
func (s *session) unsubscribeAll() {
	s.mu.Lock()
	subs := make([]*subscription, 0, len(s.subscriptions))
	for _, sub := range s.subscriptions {
		sub.stop()
		subs = append(subs, sub)
	}
	s.mu.Unlock()
	for _, sub := range subs {
		<-sub.done
	}
}

func (s *session) subscription(key subscriptionKey) *subscription {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.subscriptions[key]
}

// run delivers messages until the subscription is canceled. If delivery fails before, run ends
// the session too.
func (sub *subscription) run(ctx context.Context, s *session, release, deliver func() error) {
	defer close(sub.done)
	switch err := deliver(); {
	case ctx.Err() != nil:
	case errors.Is(err, errConnection):
		s.failConnection(err)
	default:
		s.fail(fmt.Errorf("subscription %q: %w", sub.key.name(), err))
	}
	sub.stop()
	if err := release(); err != nil {
		s.log.Warn("a subscription does not end in good order", "err", err)
	}
}

// stop ends the subscription. It does not wait until delivery has ended.
func (sub *subscription) stop() {
	sub.cancel()
	sub.mu.Lock()
	defer sub.mu.Unlock()
	sub.stopped, sub.requeues = true, nil
	if sub.timer != nil {
		sub.timer.Stop()
	}
}

// requeueLater returns messages to the inbox after a pause, which is the same in all calls, or up to
// a tenth of it later: together with those of other calls, because returning messages takes time
// proportional to the number of all that are returned and not delivered again. Until then they count
// against the prefetch-count, so that at most prefetch-count messages can be redelivered
// repeatedly at any time.
func (sub *subscription) requeueLater(seqs []uint64, pause time.Duration) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.stopped {
		return // sub.run returns all unacknowledged messages
	}
	sub.requeues = append(sub.requeues, requeue{time.Now().Add(pause), seqs})
	if sub.timer == nil {
		sub.timer = time.AfterFunc(pause, func() { sub.requeueDue(pause / 10) })
	}
}

// requeueDue returns the messages to the inbox whose time has come. It is called again, not before
// the pause has passed, while there are others.
func (sub *subscription) requeueDue(pause time.Duration) {
	sub.mu.Lock()
	defer sub.mu.Unlock()
	if sub.stopped {
		return
	}
	now := time.Now()
	var seqs []uint64
	n := 0
	for ; n < len(sub.requeues) && !sub.requeues[n].due.After(now); n++ {
		seqs = append(seqs, sub.requeues[n].seqs...)
	}
	sub.requeues = sub.requeues[n:]
	sub.timer = nil
	if len(sub.requeues) > 0 {
		sub.timer = time.AfterFunc(max(pause, sub.requeues[0].due.Sub(now)), func() { sub.requeueDue(pause) })
	}
	// If Nack fails, the store is closed, and the subscription ends.
	if sub.source.Nack(seqs) == nil {
		sub.unacked.free(len(seqs))
	}
}

// maxTaken is the maximum number of messages taken from the store at once. More would
// not be faster, and could delay other subscriptions.
const maxTaken = 500

// deliver delivers messages of the inbox to the client, within its prefetch-count.
func (s *session) deliver(ctx context.Context, sub *subscription) error {
	w := newMessageWriter(s, sub)
	for {
		space := sub.unacked.space()
		if space < 1 {
			select {
			case <-sub.unacked.freed:
				continue
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		messages, err := sub.source.Next(ctx, min(space, maxTaken))
		if err != nil {
			return err
		}
		sub.unacked.use(len(messages))
		written := make([]uint64, 0, len(messages))
		for i := range messages {
			sent, err := s.deliverOne(sub, w, &messages[i])
			if err != nil {
				return err
			}
			if sent {
				written = append(written, messages[i].Seq)
			}
		}
		if sub.ack != AckAuto {
			continue
		}
		// The messages are removed only after all of them were written: if the
		// connection breaks meanwhile, it is better that some are redelivered.
		if err := s.removeDelivered(sub, written); err != nil {
			return err
		}
	}
}

// deliverOne writes a message to the client. A message that does not fit into a frame is
// not delivered again until the subscription ends: so it is not lost, and does not block
// others. (The limits for messages from peers are such that every message fits.)
func (s *session) deliverOne(sub *subscription, w *messageWriter, m *embedded.InboxMessage) (sent bool, err error) {
	var tag uint64
	if sub.ack != AckAuto {
		tag = s.tags.Add(1)
		sub.unacked.add(held{tag: tag, seq: m.Seq, id: m.ID}) // before it is written, because the ACK may be received at once
	}
	err = w.write(m, tag)
	if errors.Is(err, stomp.ErrUnsendable) {
		s.log.Error("a message in the inbox can not be delivered", "err", err)
		sub.unacked.remove(tagged(tag), false)
		sub.unacked.free(1)
		return false, nil
	}
	return err == nil, err
}

// removeDelivered removes messages from the inbox that were delivered to a subscription with
// [AckAuto].
func (s *session) removeDelivered(sub *subscription, seqs []uint64) error {
	return sub.source.Ack(seqs, func(err error) {
		if err != nil {
			s.fail(err)
		}
		sub.unacked.free(len(seqs))
	})
}

// deliverCopies delivers copies of received messages to the client.
func (s *session) deliverCopies(ctx context.Context, sub *subscription, watcher *embedded.Watcher) error {
	w := newMessageWriter(s, sub)
	for {
		m, missed, err := watcher.Next(ctx)
		if err != nil {
			return err
		}
		err = w.writeCopy(&m, missed)
		if errors.Is(err, stomp.ErrUnsendable) {
			s.log.Error("a message in the inbox can not be delivered as a copy", "err", err)
			continue
		}
		if err != nil {
			return err
		}
	}
}
