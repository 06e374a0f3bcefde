package embedded

import (
	"context"
	"database/sql/driver"
	"fmt"
	"time"

	"peerlink/broker"
)

// Message is a message as stored in a queue or an inbox.
type Message struct {
	Seq         uint64    // sequence number in the queue
	ID          string    // identifies this message, and never another message of this queue
	Arrived     time.Time // when it was stored, or retried as a dead letter; a multiple of a millisecond
	RoutingKey  string    // as published or sent; "" if it was put into the queue directly
	Type        string    // SMP message type
	ContentType string
	Headers     []broker.Header // only of messages in an inbox
	Body        []byte
	Peer        string // ID of the sending peer; "" if unknown, and for a message of an application

	size    int   // in bytes; see rowSize
	counted int64 // its part of the peer's usage, in bytes
}

// scanMessage returns the message in the first seven columns of readConn.messages, which
// are also those of readConn.deadLetters. It returns [errDamaged] if the headers can not be
// decoded.
func scanMessage(queue string, cols []driver.Value) (Message, error) {
	m := Message{
		Seq:         uint64(number(cols[0])),
		Arrived:     time.UnixMilli(number(cols[1])),
		Type:        text(cols[2]),
		ContentType: text(cols[3]),
		RoutingKey:  text(cols[4]),
		Body:        blob(cols[6]),
	}
	var err error
	if m.Headers, err = decodeHeaders(text(cols[5])); err != nil {
		return Message{}, fmt.Errorf("message %d of queue %s: %w: %w; %s", m.Seq, queue, errDamaged, err, damageAdvice)
	}
	return m, nil
}

// Incoming converts a message of an inbox to the one that was published, with the inbox as
// its exchange.
func (m Message) Incoming(inbox string) broker.Incoming {
	return broker.Incoming{
		Peer:        m.Peer,
		Exchange:    inbox,
		RoutingKey:  m.RoutingKey,
		Type:        m.Type,
		ContentType: m.ContentType,
		Headers:     m.Headers,
		Body:        m.Body,
	}
}

// Peek returns up to limit messages at the beginning of a queue or an inbox, of about 1 MiB
// in total, and does not remove them. A consumer may have received some of them, and not
// confirmed them yet.
func (s *Store) Peek(ctx context.Context, queue string, limit int) ([]Message, error) {
	var found []Message
	err := s.read(ctx, "peek into queue "+queue, func(r *readConn) (err error) {
		found, err = r.readMessages(queue, 0, max(limit, 0))
		return err
	})
	if err != nil {
		return nil, err
	}
	return found, nil
}
