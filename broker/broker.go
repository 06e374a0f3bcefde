// Package broker defines what a link needs of a message store, and nothing more: consuming
// the messages of a peer's queue, removing them after the peer has confirmed them, moving
// a message that can not be sent to the dead letters, and publishing received messages to
// the node's inbox.
//
// Both directions form batches under load. A consumer returns the messages that are there,
// up to a limit. A publisher accepts messages without waiting, and reports with a
// cumulative count how many of them are durable. No message is confirmed before it is
// durable, and none is removed before it is confirmed: a crash may repeat messages, and
// never loses one.
package broker

import (
	"context"
	"errors"
)

// UnroutableRemedy is what an operator can do about [ErrUnroutable] for a received message.
const UnroutableRemedy = "let an application declare this exchange, and bind a queue to it with a key that matches"

var (
	// ErrClosed is returned by operations on a closed broker, consumer or publisher.
	ErrClosed = errors.New("broker: closed")
	// ErrUnroutable is reported for a message that is routed to no queue.
	ErrUnroutable = errors.New("broker: no queue is bound for this message")
	// ErrInUse is returned for a queue that has a consumer already: in this process, or in
	// another one if the broker detects these.
	ErrInUse = errors.New("broker: queue is in use")
	// ErrReopen is returned by a Consumer that has ended although nothing has failed, after
	// all its deliveries were confirmed or excluded. The caller should open a new Consumer
	// immediately.
	ErrReopen = errors.New("broker: queue has to be opened anew")
	// ErrTooManyExcluded is returned by [Consumer.Exclude] while the Consumer holds so many
	// excluded deliveries that it must not hold more.
	ErrTooManyExcluded = errors.New("broker: too many messages can be neither sent nor moved to the dead letters")
	// ErrNoQueue is returned for a queue that does not exist.
	ErrNoQueue = errors.New("broker: queue does not exist")
)

// Outgoing is a message for a peer, as the node's application sent it.
type Outgoing struct {
	Type        string // SMP message type
	ContentType string
	Body        []byte
}

// Delivery is an Outgoing message taken out of a queue.
type Delivery struct {
	Tag uint64 // increases with the position in the queue; meaningful only to the Consumer that returned it
	Outgoing
}

// Incoming is a message received from a peer, validated and translated for the node's
// applications.
type Incoming struct {
	Peer        string // ID of the sending peer; "" if unknown
	Exchange    string // the node's inbox: "accounts_in", "creditors_in" or "debtors_in"
	RoutingKey  string
	Type        string // SMP message type
	ContentType string
	Headers     []Header
	Body        []byte
}

// Header is an application header of an Incoming message. Value is an int64, a bool or a
// string; brokers with typed headers keep the type.
type Header struct {
	Name  string
	Value any
}

// PeerBinding describes the objects that carry the messages for one peer: the exchange that
// the applications send to, and the queue or queues bound to it.
type PeerBinding struct {
	PeerID     string   // the peer's node ID
	Prefix     string   // "aa", "ca" or "da", depending on the type of this node
	Exchange   string   // "to_creditors", "to_debtors", "creditors_out" or "debtors_out"
	Fanout     bool     // the exchange ignores routing keys
	BindingKey string   // "00.00.01.#"; empty for a fanout exchange
	Queues     []string // "peer.<ID>.0", ...; a broker may use only the first
}

// Broker stores messages durably. All methods are safe for concurrent use.
type Broker interface {
	// Bind creates the objects for a peer, unless they exist, so that messages for the
	// peer are routed to its queues. A later call with a changed PeerBinding updates the
	// objects.
	Bind(ctx context.Context, b PeerBinding) error
	// Unbind ends the routing that Bind has set up: from then on, no message is routed to
	// the peer's queues. The queues and their messages stay.
	Unbind(ctx context.Context, b PeerBinding) error
	// CheckInUse returns [ErrInUse] if the queue has a consumer, and nil if the queue does not
	// exist. It is an early check, so that a caller need not prepare for a Consume that would
	// fail. Only Consume is authoritative.
	CheckInUse(ctx context.Context, queue string) error
	// Consume opens a queue for consuming. It returns [ErrNoQueue] if the queue does not
	// exist, and [ErrInUse] if the queue has a consumer already. Deliveries that are not
	// confirmed return to the queue when the Consumer is closed.
	Consume(ctx context.Context, queue string) (Consumer, error)
	// Publish opens the inbox for a stream of received messages. confirmed is called, from
	// one goroutine at a time, with an increasing count n: the first n messages that this
	// Publisher has accepted (its Publish returned nil) are durable. confirmed must not block.
	// An error is final: n need not have increased, and no message after the first n will be
	// confirmed.
	Publish(ctx context.Context, confirmed func(n uint64, err error)) (Publisher, error)
	// Health returns why some messages cannot be stored or consumed at the moment, or nil if no
	// problem is known. It does not block.
	Health() error
	// Close flushes pending work, as far as possible, and releases all resources.
	Close() error
}

// QueueRequester is implemented by a [Broker] whose queues are shared by several
// processes. Its Consumers implement [QueueYielder].
type QueueRequester interface {
	// RequestQueue requests that the process which consumes a queue leaves it to this
	// process; held is the number of queues that this process consumes already. RequestQueue
	// does not wait for a reply, and the request may remain without effect.
	RequestQueue(ctx context.Context, queue string, held int) error
}

// QueueYielder is a [Consumer] of a queue that other processes may request.
type QueueYielder interface {
	// QueueRequests returns a channel of requests for this queue. Each value is the number
	// of queues that the requesting process consumes already. A request that is not
	// received in time is dropped.
	QueueRequests() <-chan int
}

// Consumer consumes the messages of one queue, in order.
type Consumer interface {
	// Next waits until the queue has a message that was not delivered yet, and returns up to
	// limit such messages, in order. The deliveries may share memory with one another, but
	// not with deliveries that are returned later.
	Next(ctx context.Context, limit int) ([]Delivery, error)
	// Confirm removes the delivery with this tag and all earlier deliveries, except those
	// that were passed to Exclude or DeadLetter. It returns before the removal is durable:
	// at worst the messages are delivered again after a crash. A tag that was not delivered
	// is an error, one that was confirmed already is not.
	Confirm(tag uint64) error
	// Exclude excludes one delivery from every later Confirm: the message stays in the
	// queue until DeadLetter has moved it. Exclude does not block. It returns
	// [ErrTooManyExcluded] when the number or the size of the excluded deliveries has reached
	// the bound of the Consumer; it may be called again after DeadLetter has moved one of them.
	Exclude(tag uint64) error
	// DeadLetter moves one delivery to the dead letters, with the reason. It returns when
	// the move is durable. If DeadLetter fails, the message stays in the queue, even if
	// later deliveries are confirmed, and DeadLetter may be called for it again; but if ctx
	// has ended, the message may become a dead letter nevertheless.
	DeadLetter(ctx context.Context, tag uint64, reason string) error
	// Close returns unconfirmed deliveries to the queue. Confirmations made before Close
	// remain valid.
	Close() error
}

// Publisher publishes received messages to the inbox.
type Publisher interface {
	// Publish submits the next message. It returns without waiting for durability, but
	// blocks while too many messages are not durable yet. A message for which it returns an
	// error is not counted by confirmed. The caller must not modify *m and its slices
	// afterwards.
	Publish(ctx context.Context, m *Incoming) error
	// Close ends the stream. The last count passed to confirmed remains valid; each message
	// beyond it may or may not be stored.
	Close() error
}

// FormerQueues is implemented by a [Broker] in which messages for a peer may have been routed
// to queues with other names, since an operator can change the names.
type FormerQueues interface {
	// UnbindFormer removes the bindings of former queues, whose messages were sent to the
	// peer before, as far as these queues exist: no more messages are routed to them. It
	// returns the names of those former queues that have messages. b describes the peer's
	// present objects.
	UnbindFormer(ctx context.Context, b PeerBinding, former []string) (waiting []string, err error)
}

// Quotas is implemented by a [Broker] that limits how much it stores of the messages received
// from each peer, until the node's applications have consumed them.
type Quotas interface {
	// AwaitQuota waits until more messages received from this peer may be published. It is
	// cheap, and meant to be called before every message. If it need not wait, it returns nil
	// even if ctx has ended. It returns the error of ctx when
	// ctx ends, and [ErrClosed] when the broker is closed.
	AwaitQuota(ctx context.Context, peer string) error
}
