// Package broker says what a link needs of a message store, and nothing more:
// take messages out of a peer's queue, remove them once the peer has confirmed
// them, set aside the one that can not be sent, and put received messages into
// the node's inbox.
//
// Both directions are built so that batches form by themselves. A consumer
// gives whatever is there, up to a limit; a publisher takes messages without
// waiting and reports with a cumulative count how many of them are safe on
// disk. Nothing is confirmed before it is durable, nothing is removed before
// it is confirmed; a crash anywhere repeats messages and never loses one.
package broker

import (
	"context"
	"errors"
)

var (
	// ErrClosed is returned by operations on a closed broker, consumer or publisher.
	ErrClosed = errors.New("broker: closed")
	// ErrUnroutable is reported for a message that no queue would take.
	ErrUnroutable = errors.New("broker: no queue takes this message")
	// ErrInUse is reported for a queue out of which somebody else takes messages,
	// here or in another process.
	ErrInUse = errors.New("broker: queue is in use")
	// ErrReopen ends a Consumer of which everything given out was confirmed: it has
	// to be opened anew, at once, to get more.
	ErrReopen = errors.New("broker: queue has to be opened anew")
	// ErrNoQueue is reported for a queue that does not exist.
	ErrNoQueue = errors.New("broker: queue does not exist")
)

// Outgoing is a message on its way to a peer, as the node's application gave it.
type Outgoing struct {
	Type        string // SMP message type
	ContentType string
	Body        []byte
}

// Delivery is an Outgoing message taken out of a queue.
type Delivery struct {
	Tag uint64 // grows with the position in the queue; meaningful to its Consumer only
	Outgoing
}

// Incoming is a message received from a peer, checked and translated, for the
// node's applications.
type Incoming struct {
	Peer        string // ID of the peer that has sent it; "" if unknown
	Exchange    string // the node's inbox: "accounts_in", "creditors_in" or "debtors_in"
	RoutingKey  string
	Type        string // SMP message type
	ContentType string
	Headers     []Header
	Body        []byte
}

// Header is an application header of an Incoming message. Value is an int64, a
// bool or a string: brokers that know types keep them.
type Header struct {
	Name  string
	Value any
}

// PeerQueue describes the objects that carry the messages for one peer: the
// exchange the applications send to, and the queue (or queues) bound to it.
type PeerQueue struct {
	PeerID     string   // the peer's node ID
	Prefix     string   // "aa", "ca" or "da": by the owner's type
	Exchange   string   // "to_creditors", "to_debtors", "creditors_out" or "debtors_out"
	Fanout     bool     // the exchange ignores routing keys
	BindingKey string   // "00.00.01.#"; empty for a fanout exchange
	Queues     []string // "peer.<ID>.0", ...; a broker may use only the first
}

// Broker stores messages durably. All methods are safe for concurrent use.
type Broker interface {
	// Bind makes the objects for a peer, if they are not there yet, so that
	// messages for it are taken. Declaring again with a changed PeerQueue
	// brings the objects up to date.
	Bind(ctx context.Context, q PeerQueue) error
	// Unbind takes back what Declare did for new messages: from now on no
	// message for the peer is taken. What is queued stays.
	Unbind(ctx context.Context, q PeerQueue) error
	// CheckInUse reports [ErrInUse] if somebody takes messages out of a queue. That
	// spares preparations for Consume, which alone decides.
	CheckInUse(ctx context.Context, queue string) error
	// Consume opens a queue for taking messages out. It reports [ErrNoQueue],
	// and [ErrInUse] if the queue has a Consumer already, wherever that is.
	// Messages given out and not confirmed go back to the queue when the
	// Consumer is closed.
	Consume(ctx context.Context, queue string) (Consumer, error)
	// Publish opens the inbox for a stream of received messages. confirmed is
	// called, from one goroutine at a time, with a growing count n: the first n
	// messages given to this Publisher are durable. It must not block. An error
	// is final: nothing after n will be confirmed.
	Publish(ctx context.Context, confirmed func(n uint64, err error)) (Publisher, error)
	// Health says why messages can not be stored or taken out at the moment; nil
	// if nothing is known to be wrong. It does not wait for anything.
	Health() error
	// Close flushes what can be flushed and releases all resources.
	Close() error
}

// QueueRequester is what a [Broker] implements whose queues several processes share. Its
// Consumers implement [QueueYielder].
type QueueRequester interface {
	// RequestQueue asks the process that takes messages out of a queue to leave it to this
	// one, which has that number of queues. It does not wait for an answer: the queue is free
	// soon, or not.
	RequestQueue(ctx context.Context, queue string, has int) error
}

// QueueYielder is a [Consumer] of a queue that other processes would take.
type QueueYielder interface {
	// QueueRequests receives how many queues a process has that asks for this one. What is
	// not received in time is dropped.
	QueueRequests() <-chan int
}

// Consumer takes messages out of one queue, in order.
type Consumer interface {
	// Next waits until there is at least one message that has not been given
	// out yet, and returns up to max of them. The deliveries may share memory
	// with one another but not with later ones.
	Next(ctx context.Context, max int) ([]Delivery, error)
	// Confirm removes the delivery with this tag and all given out before it,
	// except for those that Keep or DeadLetter was called for.
	// It returns before the removal is durable: at worst the messages are
	// given out again after a crash.
	Confirm(tag uint64) error
	// Exclude excludes one delivery from every later Confirm: the message stays in
	// the queue until DeadLetters has moved it. It waits for nothing.
	Exclude(tag uint64) error
	// DeadLetter moves one delivery to the messages that can not be sent, with
	// the reason. It returns when that is durable. When it fails, the message
	// stays in the queue, whatever is confirmed, and DeadLetters may be called for
	// it again.
	DeadLetter(ctx context.Context, tag uint64, reason string) error
	// Close gives what is not confirmed back to the queue. Confirmations made
	// before Close hold.
	Close() error
}

// Publisher puts received messages into the inbox.
type Publisher interface {
	// Publish hands over the next message. It returns without waiting for
	// durability, but blocks while too many messages are on their way to disk.
	// The message's slices must not be changed afterwards.
	Publish(ctx context.Context, m *Incoming) error
	// Close ends the stream. The count reported before Close holds; of the
	// messages not yet reported each may or may not be stored.
	Close() error
}

// Quotas is what a [Broker] implements, besides, that bounds how much it stores
// for one peer until the node's applications have taken it.
type Quotas interface {
	// AwaitQuota waits until more messages of this peer may be published. Asking
	// before every message is meant, and cheap. The error is that of ctx, or
	// ErrClosed.
	AwaitQuota(ctx context.Context, peer string) error
}
