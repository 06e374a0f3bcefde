package local

import (
	"strconv"
	"strings"

	"peerlink/stomp"
)

// handle starts the operation of a frame, which calls op.done. If handle returns an error, the
// caller must call op.done with it.
func (s *session) handle(f *stomp.Frame, op *operation) error {
	if _, ok := f.Get("transaction"); ok {
		return refusef("%s in a transaction: transactions are not supported", f.Command)
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
	case "BEGIN", "COMMIT", "ABORT":
		return refusef("%s: transactions are not supported", f.Command)
	case "CONNECT", "STOMP":
		return refusef("%s: the connection is open already", f.Command)
	default:
		return refusef("%.40s: expected SEND, SUBSCRIBE, UNSUBSCRIBE, ACK, NACK or DISCONNECT", f.Command)
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
	var err error
	if o.id, err = required(f, "id"); err != nil {
		return o, err
	}
	if len(o.id) > maxID {
		return o, refusef("SUBSCRIBE with an id of %d bytes: at most %d are possible", len(o.id), maxID)
	}
	o.id = strings.Clone(o.id) // cloned, because o.id would keep the frame's other headers in memory
	destination, err := required(f, "destination")
	if err != nil {
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
		if o.prefetch, err = strconv.Atoi(prefetch); err != nil || o.prefetch < 1 || o.prefetch > maxPrefetch {
			return o, refusef("SUBSCRIBE with prefetch-count %.40q: expected a number from 1 to %d", prefetch, maxPrefetch)
		}
	}
	return o, nil
}

func (s *session) unsubscribe(f *stomp.Frame, op *operation) error {
	id, err := required(f, "id")
	if err != nil {
		return err
	}
	if err := s.removeSubscription(id); err != nil {
		return err
	}
	op.done(nil)
	return nil
}

func (s *session) ack(f *stomp.Frame, op *operation) error {
	sub, seqs, err := s.takeUnacked(f)
	if err != nil {
		return err
	}
	sub.unacked.free(len(seqs))
	return sub.source.Ack(seqs, op.done)
}

func (s *session) nack(f *stomp.Frame, op *operation) error {
	requeue := true
	if r, ok := f.Get("requeue"); ok {
		var err error
		if requeue, err = strconv.ParseBool(r); err != nil {
			return refusef("NACK with requeue %.40q: expected true or false", r)
		}
	}
	sub, seqs, err := s.takeUnacked(f)
	if err != nil {
		return err
	}
	if !requeue {
		// RabbitMQ would dead-letter the messages. The inbox has no dead letters: as in a
		// queue without a dead-letter exchange, the messages are removed.
		sub.unacked.free(len(seqs))
		return sub.source.Ack(seqs, op.done)
	}
	sub.requeueLater(seqs, s.door.bounds.nackPause)
	op.done(nil)
	return nil
}

// takeUnacked removes the messages to which an ACK or NACK applies from the
// unacknowledged messages of their subscription. It returns the subscription and the
// sequence numbers of the messages. They count against the prefetch-count until
// unacked.free is called.
func (s *session) takeUnacked(f *stomp.Frame) (*subscription, []uint64, error) {
	ackID, err := required(f, "id")
	if err != nil {
		return nil, nil, err
	}
	tag, subscriptionID, ok := parseAckID(ackID)
	if ok {
		if sub := s.subscription(subscriptionID); sub != nil && sub.unacked != nil {
			if seqs := sub.unacked.remove(tag, sub.ack == AckClient); len(seqs) > 0 {
				return sub, seqs, nil
			}
		}
	}
	return nil, nil, refusef("%s of %.100q: expected the ack header of a message that this connection holds", f.Command, ackID)
}

// required returns the value of a header that must exist and not be empty.
func required(f *stomp.Frame, name string) (string, error) {
	value, _ := f.Get(name)
	if value == "" {
		return "", refusef("%s without %s header", f.Command, name)
	}
	return value, nil
}
