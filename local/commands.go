package local

import (
	"cmp"
	"strconv"
	"strings"

	"peerlink/stomp"
)

// handle starts the operation of a frame, which calls op.done. If handle returns an error, the
// caller must call op.done with it.
func (s *session) handle(f *stomp.Frame, op *operation) error {
	if f.Command == "SEND" {
		if err := s.awaitBound(); err != nil {
			return err
		}
	}
	switch f.Command {
	case "BEGIN":
		return s.begin(f, op)
	case "COMMIT":
		return s.commit(f, op)
	case "ABORT":
		return s.abortTransaction(f, op)
	}
	if name, ok := f.Get("transaction"); ok {
		return s.addToTransaction(f, name, op)
	}
	switch f.Command {
	case "SEND":
		return s.send(f, op)
	case "SUBSCRIBE":
		return s.subscribe(f, op)
	case "UNSUBSCRIBE":
		return s.unsubscribe(f, op)
	case "ACK":
		return s.ack(f, op)
	case "NACK":
		return s.nack(f, op)
	case "CONNECT", "STOMP":
		return refusef("%s: the connection is open already", f.Command)
	default:
		return refusef("%.40s: expected SEND, SUBSCRIBE, UNSUBSCRIBE, ACK, NACK, BEGIN, COMMIT, ABORT or DISCONNECT", f.Command)
	}
}

func (s *session) subscribe(f *stomp.Frame, op *operation) error {
	o, err := s.subscribeOptions(f)
	if err != nil {
		return err
	}
	if err := s.addSubscription(o); err != nil {
		return err
	}
	op.done(nil)
	return nil
}

// subscribeOptions parses the headers of a SUBSCRIBE.
func (s *session) subscribeOptions(f *stomp.Frame) (subscribeOptions, error) {
	o := subscribeOptions{ack: AckAuto, prefetch: defaultPrefetch}
	destination, err := required(f, "destination")
	if err != nil {
		return o, err
	}
	if o.key, err = keyOf(f); err != nil {
		return o, err
	}
	if o.copies, err = s.door.destinations.parseSubscribe(destination); err != nil {
		return o, err
	}
	if ack, ok := f.Get("ack"); ok {
		o.ack = AckMode(strings.Clone(ack))
	}
	switch {
	case !o.ack.valid():
		return o, refusef("SUBSCRIBE with ack %.40q: expected %s, %s or %s", o.ack, AckAuto, AckClient, AckIndividual)
	case o.copies && o.ack != AckAuto:
		return o, refusef("SUBSCRIBE to %.100q with ack %s: copies are not acknowledged, expected %s", destination, o.ack, AckAuto)
	}
	if prefetch, ok := f.Get("prefetch-count"); ok {
		n, err := strconv.ParseUint(prefetch, 10, 16)
		if err != nil {
			return o, refusef("SUBSCRIBE with prefetch-count %.40q: expected a number from 1 to %d, or 0 for as many as possible", prefetch, maxPrefetch)
		}
		o.prefetch = int(n)
	}
	return o, nil
}

// keyOf returns the key of the subscription that a SUBSCRIBE or UNSUBSCRIBE is about.
func keyOf(f *stomp.Frame) (k subscriptionKey, err error) {
	if k.id, _ = f.Get("id"); k.id == "" {
		if k.destination, err = required(f, "destination"); err != nil {
			return k, refusef("%s without id or destination header", f.Command)
		}
	}
	if len(k.name()) > maxID {
		return k, refusef("%s with an id or a destination of %d bytes: at most %d are possible", f.Command, len(k.name()), maxID)
	}
	// Cloned, because the key would keep the frame's other headers in memory.
	return subscriptionKey{strings.Clone(k.id), strings.Clone(k.destination)}, nil
}

func (s *session) unsubscribe(f *stomp.Frame, op *operation) error {
	key, err := keyOf(f)
	if err != nil {
		return err
	}
	sub, err := s.removeSubscription(key)
	if err != nil {
		return err
	}
	s.transactions.forget(sub)
	op.done(nil)
	return nil
}

func (s *session) ack(f *stomp.Frame, op *operation) error {
	sub, messages, err := s.takeUnacked(f)
	if err != nil {
		return err
	}
	return sub.removeMessages(messages, op)
}

func (s *session) nack(f *stomp.Frame, op *operation) error {
	requeue, err := requeues(f)
	if err != nil {
		return err
	}
	sub, messages, err := s.takeUnacked(f)
	if err != nil {
		return err
	}
	if !requeue {
		return sub.removeMessages(messages, op)
	}
	sub.requeueLater(seqsOf(messages), s.door.bounds.nackPause)
	op.done(nil)
	return nil
}

// requeues reports whether the messages of a NACK are returned to the inbox. Otherwise they are
// removed: RabbitMQ would dead-letter them, but the inbox has no dead letters, as a queue
// without a dead-letter exchange.
func requeues(f *stomp.Frame) (bool, error) {
	text, ok := f.Get("requeue")
	if !ok {
		return true, nil
	}
	requeue, err := strconv.ParseBool(text)
	if err != nil {
		return false, refusef("NACK with requeue %.40q: expected true or false", text)
	}
	return requeue, nil
}

// removeMessages removes messages from the inbox.
func (sub *subscription) removeMessages(messages []held, op *operation) error {
	sub.unacked.free(len(messages))
	return sub.source.Ack(seqsOf(messages), op.done)
}

// takeUnacked removes the messages to which an ACK or NACK applies from the
// unacknowledged messages of their subscription. It returns the subscription and the
// messages. They count against the prefetch-count until unacked.free is called.
func (s *session) takeUnacked(f *stomp.Frame) (*subscription, []held, error) {
	message, subs, err := s.acknowledged(f)
	if err != nil {
		return nil, nil, err
	}
	for _, sub := range subs {
		if sub.unacked == nil {
			continue
		}
		if messages := sub.unacked.remove(message, sub.ack == AckClient); len(messages) > 0 {
			return sub, messages, nil
		}
	}
	return nil, nil, refusef("%s of %.100q: expected the ack header (or message-id) of a message that this connection holds",
		f.Command, cmp.Or(header(f, "id"), header(f, "message-id")))
}

// acknowledged returns which message an ACK or NACK is about, and the subscriptions that may hold
// it. STOMP 1.2 identifies the message by its ack header, earlier versions by its message-id and,
// not always, its subscription.
func (s *session) acknowledged(f *stomp.Frame) (find, []*subscription, error) {
	if id := header(f, "id"); id != "" {
		tag, name, ok := parseAckID(id)
		if !ok || name == "" {
			return nil, nil, refusef("%s of %.100q: expected the ack header of a message that this connection holds", f.Command, id)
		}
		return tagged(tag), s.subscriptionsNamed(name), nil
	}
	id := header(f, "message-id")
	if id == "" {
		return nil, nil, refusef("%s without id or message-id header", f.Command)
	}
	return named(id), s.subscriptionsNamed(header(f, "subscription")), nil
}

// subscriptionsNamed returns the subscriptions with this name, or all of the connection if it is
// empty.
func (s *session) subscriptionsNamed(name string) (subs []*subscription) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for key, sub := range s.subscriptions {
		if name == "" || key.name() == name {
			subs = append(subs, sub)
		}
	}
	return subs
}

// header returns the value of a header, or "" if there is none.
func header(f *stomp.Frame, name string) string {
	value, _ := f.Get(name)
	return value
}

// required returns the value of a header that must exist and not be empty.
func required(f *stomp.Frame, name string) (string, error) {
	value, _ := f.Get(name)
	if value == "" {
		return "", refusef("%s without %s header", f.Command, name)
	}
	return value, nil
}
