package rabbitmq

import (
	"fmt"
	"strings"

	"peerlink/broker"
)

const (
	// maxName is the longest name, routing key or type in AMQP, in bytes. Lengths must be
	// checked before a message is sent: the library would fail in the middle of writing
	// the message, which ends the connection.
	maxName = 255
	// maxHeaders bounds the headers of a message, in bytes. AMQP sends them in a single
	// frame, of at most 128 KiB by default.
	maxHeaders = 64 << 10
	// maxReason is the number of bytes after which the reason of a dead letter is
	// truncated.
	maxReason = 4 << 10
)

// checkName checks the length of a name, which must not be empty. what describes the name in
// the error.
func checkName(what, s string) error {
	if s == "" {
		return fmt.Errorf("%w: %s is empty", ErrInvalid, what)
	}
	return checkShortString(what, s)
}

// checkQueueName checks the name of a queue and that of its lock queue, which is longer.
func checkQueueName(queue string) error {
	if err := checkName("name of the queue", queue); err != nil {
		return err
	}
	return checkName("name of the lock of queue "+queue, lockQueue(queue))
}

// checkShortString checks the length of an AMQP short string, which may be empty.
func checkShortString(what, s string) error {
	if len(s) > maxName {
		return fmt.Errorf("%w: %s has %d bytes, at most %d are possible", ErrInvalid, what, len(s), maxName)
	}
	return nil
}

func checkMessage(m *broker.Incoming) error {
	if err := checkName("exchange", m.Exchange); err != nil {
		return err
	}
	if err := checkShortString("routing key", m.RoutingKey); err != nil {
		return err
	}
	if err := checkShortString("message type", m.Type); err != nil {
		return err
	}
	if err := checkShortString("content type", m.ContentType); err != nil {
		return err
	}
	size := 0
	for _, h := range m.Headers {
		if err := checkName("header name", h.Name); err != nil {
			return err
		}
		size += len(h.Name) + 10
		switch v := h.Value.(type) {
		case int64, bool:
		case string:
			size += len(v)
		default:
			return fmt.Errorf("%w: header %s has a value of type %T, expected int64, bool or string", ErrInvalid, h.Name, h.Value)
		}
	}
	if size > maxHeaders {
		return fmt.Errorf("%w: headers have %d bytes, at most %d are possible", ErrInvalid, size, maxHeaders)
	}
	return nil
}

// checkDeadLetterNames checks the names of the dead-letter queues of a queue.
func checkDeadLetterNames(queue, suffix string) error {
	if err := checkName("name of the dead-letter queue of queue "+queue, referenceDeadLetterQueue(queue)); err != nil {
		return err
	}
	return checkName("name of the dead-letter queue of queue "+queue, queue+suffix)
}

func checkPeerBinding(q broker.PeerBinding, suffix string) error {
	for _, n := range []struct{ what, name string }{
		{"peer ID", q.PeerID}, {"prefix", q.Prefix}, {"exchange", q.Exchange}, {"peer's exchange", peerExchange(q)},
	} {
		if err := checkName(n.what, n.name); err != nil {
			return err
		}
	}
	if len(q.Queues) == 0 {
		return fmt.Errorf("%w: no queue is named", ErrInvalid)
	}
	for _, queue := range q.Queues {
		if queue == "" {
			return fmt.Errorf("%w: a queue's name is empty", ErrInvalid)
		}
		if err := checkDeadLetterNames(queue, suffix); err != nil {
			return err
		}
		if err := checkQueueName(queue); err != nil {
			return err
		}
	}
	if q.Fanout && q.BindingKey != "" {
		return fmt.Errorf("%w: binding key %q for a fanout exchange, which has none", ErrInvalid, q.BindingKey)
	}
	return checkShortString("binding key", q.BindingKey)
}

// reasonText truncates a text to maxReason bytes and replaces invalid UTF-8, which may make it
// longer again.
func reasonText(s string) string {
	return strings.ToValidUTF8(s[:min(len(s), maxReason)], "\uFFFD")
}
