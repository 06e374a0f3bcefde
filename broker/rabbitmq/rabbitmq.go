// Package rabbitmq implements a message store on RabbitMQ: a [broker.Broker] with exactly
// the exchanges, queues and headers of the reference implementation, so that the network's
// applications work with it unchanged (section "RabbitMQ objects of the reference" of the
// messages specification).
//
// # Objects
//
//	                      binding key                            peer.<ID>.0 ──▶ peer.<ID>.0.XQ
//	application ──▶ to_creditors ──────────▶ aa.x.<ID> ──────┬──▶ peer.<ID>.1 ──▶ peer.<ID>.1.XQ
//	                (topic)                  (x-random)      └──▶ …               dead letters
//
//	peer ──▶ accounts_in ──▶ queues that the application has bound
//
// [Broker.Bind] declares the objects of the upper line. The application declares the inbox
// exchange. Existing queues are used as they are; new ones have the type
// [Options.QueueType].
//
// # Consuming
//
// A [broker.Consumer] is a channel with one consumer, which is the queue's only one among
// all processes ([broker.ErrInUse]): for as long as the channel is open, it holds an
// exclusive queue, peer.<ID>.0.lock, which RabbitMQ refuses to other connections. RabbitMQ
// sends up to [Options.Prefetch] messages before they are acknowledged; they are kept in
// memory, and those that have arrived form the next batch. The goroutine that receives them
// also sends the acknowledgements, one for all confirmations since the last acknowledgement:
// a peer that confirms each message does not cause a write for each message.
//
// A dead letter is published to the queue's dead-letter queue with its properties and four
// more headers (x-peerlink-reason, x-peerlink-time, x-peerlink-exchange and
// x-peerlink-routing-key), and the original is acknowledged after RabbitMQ has confirmed the copy. Rejecting the message
// would be one step instead of two, but would not record the reason. A crash between the
// two steps leaves the message in both queues.
//
// The operator's view ([broker.DeadLetters]) consumes the messages of a dead-letter queue
// and requeues them, because AMQP has no other way to read them. It includes messages that
// other programs have rejected. The ID of a message is a digest of its content.
//
// # Publishing
//
// A [broker.Publisher] is a channel in confirm mode. Messages are published as they come,
// persistent and mandatory, up to [Options.MaxPending] before RabbitMQ has confirmed them.
// The confirmations arrive in any order. A goroutine waits for them in the order of
// publishing, and reports the count when it has to wait: this forms the batches. A message
// that RabbitMQ returns, refuses or does not confirm in time ends the stream; the messages
// before it are durable.
//
// # When RabbitMQ fails
//
// There are three connections: one for publishing, because RabbitMQ stops reading from it
// when it is short of memory or disk, one for consuming, and one for declaring, because
// some errors close the connection. (With thousands of streams or queues there are more,
// since the number of channels of a connection is limited.) Consumers and Publishers do
// not recover from a lost connection: they return an error and can not be used any more;
// unacknowledged messages are in their queue again, and peers will send unconfirmed
// messages again. The next Consume or Publish opens a new connection, with pauses that
// grow from about a tenth of a second to about five seconds. There is one log entry when the
// connection to RabbitMQ is lost, when the reason changes, and when there is a connection again.
//
// When RabbitMQ can be reached again, it may have lost its objects. So from the first Bind on, a
// goroutine reconnects after a loss, and then declares all objects again, whether or not they
// are consumed: without the objects, RabbitMQ drops the messages of applications. It also checks
// the objects of each peer every minute.
package rabbitmq

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
)

var (
	// ErrInvalid is returned for names and messages that AMQP can not carry, and for invalid
	// [Options].
	ErrInvalid = errors.New("rabbitmq: invalid")
	// errNotDelivered is returned for the tag of a message that was never delivered to the
	// user of the consumer, or was confirmed or moved to the dead letters since, or is being
	// moved.
	errNotDelivered = errors.New("rabbitmq: message was not delivered by this consumer, or is confirmed or set aside already")
	// errBlocked is returned while RabbitMQ accepts no messages because it is short of
	// memory or disk.
	errBlocked = errors.New("rabbitmq: RabbitMQ blocks publishing")
	// errNotConfirmed is returned if RabbitMQ has refused a message, or has not confirmed it
	// within [Options.ConfirmTimeout]. It ends a stream.
	errNotConfirmed = errors.New("rabbitmq: message is not confirmed")
)

// QueueType is the type of a RabbitMQ queue.
type QueueType string

const (
	// Classic queues are the reference's type. They exist on one node.
	Classic QueueType = "classic"
	// Quorum queues are replicated in a cluster.
	Quorum QueueType = "quorum"
)

// Options configure a [Broker]. The zero Options are valid.
type Options struct {
	// Logger logs, among others, when the connection to RabbitMQ is lost, and when there is
	// one again; nil means [slog.Default].
	Logger *slog.Logger
	// QueueType is the type of the queues that Bind declares; "" means Classic. Existing
	// queues keep their type.
	QueueType QueueType
	// DeadLetterSuffix is appended to the name of a queue to form the name of the queue to which
	// DeadLetter moves its messages; "" means ".XQ", as in the reference. RabbitMQ may have
	// policies for queues with such names that drop messages; AMQP does not show policies.
	DeadLetterSuffix string
	// Prefetch bounds the number of unconfirmed messages of a Consumer, at most 65,535; 0
	// means 2,000. RabbitMQ sends no more until some are confirmed, so it must not be less
	// than the number of messages in flight to the peer. A Consumer holds fewer large
	// messages: at most 8 MiB.
	Prefetch int
	// MaxPending bounds the number of unconfirmed messages of a Publisher; 0 means 1,000.
	MaxPending int
	// ConnectTimeout bounds an attempt to connect, and each synchronous AMQP method; 0
	// means 10 s. A method may take up to six times as long while RabbitMQ answers other
	// operations on the connection: it executes them in order.
	ConnectTimeout time.Duration
	// ConfirmTimeout is how long RabbitMQ may take to confirm a message; 0 means 20 s.
	ConfirmTimeout time.Duration

	// Management is the URL of RabbitMQ's management plugin, as for [OpenManagement]. If it is not
	// empty, the policies of queues are read from there, and those that may drop messages
	// are among the warnings.
	Management string

	checkInterval time.Duration // set by tests only; 0 means the constant of this name
}

func (o Options) withDefaults() (Options, error) {
	o.Logger = cmp.Or(o.Logger, slog.Default())
	o.QueueType = cmp.Or(o.QueueType, Classic)
	o.DeadLetterSuffix = cmp.Or(o.DeadLetterSuffix, defaultDeadLetterSuffix)
	o.Prefetch = cmp.Or(max(o.Prefetch, 0), 2000)
	o.MaxPending = cmp.Or(max(o.MaxPending, 0), 1000)
	o.ConnectTimeout = cmp.Or(max(o.ConnectTimeout, 0), 10*time.Second)
	o.ConfirmTimeout = cmp.Or(max(o.ConfirmTimeout, 0), 20*time.Second)
	o.checkInterval = cmp.Or(o.checkInterval, checkInterval)
	if o.QueueType != Classic && o.QueueType != Quorum {
		return o, fmt.Errorf("%w: queue type %q, expected %s or %s", ErrInvalid, o.QueueType, Classic, Quorum)
	}
	if len(o.DeadLetterSuffix) > maxName/2 || o.DeadLetterSuffix[0] != '.' || o.DeadLetterSuffix == lockQueue("") {
		return o, fmt.Errorf("%w: dead-letter suffix %q, expected one that begins with a dot, has at most %d bytes, and is not %s", ErrInvalid, o.DeadLetterSuffix, maxName/2, lockQueue(""))
	}
	if o.Prefetch > math.MaxUint16 {
		return o, fmt.Errorf("%w: prefetch of %d messages, at most %d are possible", ErrInvalid, o.Prefetch, math.MaxUint16)
	}
	return o, nil
}

// Broker is a RabbitMQ server or cluster. It implements [broker.Broker]; all its methods
// are safe for concurrent use.
type Broker struct {
	endpoints endpoints
	opts      Options
	log       *slog.Logger
	health    *health

	management *Management // nil without Options.Management

	life context.Context // cancelled when the broker is closed
	end  context.CancelFunc

	publishing, consuming, declaring *connection

	once           sync.Once // for closing
	mu             sync.Mutex
	closed         bool
	consumers      map[*consumer]struct{}
	publishers     map[*publisher]struct{}
	declared       map[string]declaration    // by peer
	prefetch       map[string]int            // by queue, if different from opts.Prefetch
	excluded       map[string]excludedSize   // by queue: what its last consumer left excluded
	unreplaced     map[string]bool           // queues with messages that could not be replaced, see checkCanReplace
	kinds          map[string]kind           // by queue
	loggedLimits   map[int]bool              // the delivery limits that were logged
	risks          map[string]risk           // by queue
	examinedIn     map[string]int            // by queue: epoch in which examineArguments has queried RabbitMQ
	lengthChecks   map[string]*lengthCheck   // by dead-letter queue
	otherConsumers map[string]otherConsumers // by queue
	silentLocks    map[string]bool           // by queue: RabbitMQ does not answer whether its lock is held

	prober   prober
	keepOnce sync.Once // starts keepDeclared
	// The constants with these names, except in tests.
	lengthInterval, recoveryTime time.Duration

	change chan struct{} // semaphore: has an element while objects of a peer are changed
}

var (
	_ broker.Broker         = (*Broker)(nil)
	_ broker.QueueRequester = (*Broker)(nil)
	_ broker.QueueYielder   = (*consumer)(nil)
)

// Open returns a Broker for the RabbitMQ server at an amqp:// or amqps:// URL, or for a
// cluster at several URLs, separated by commas. If there are several URLs, or a host name has
// several addresses, connections are spread over the addresses, and if an address does not
// respond, another one is used. (For amqps, the URL's parameters cacertfile, certfile and
// keyfile name the files to use.) Open does not connect: RabbitMQ need not be running yet.
// The URL's password appears in no error and no log.
func Open(url string, opts Options) (*Broker, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	a, err := parseURLs(url)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		endpoints:      a,
		opts:           opts,
		log:            opts.Logger.With("broker", a.String()),
		consumers:      make(map[*consumer]struct{}),
		publishers:     make(map[*publisher]struct{}),
		declared:       make(map[string]declaration),
		prefetch:       make(map[string]int),
		excluded:       make(map[string]excludedSize),
		unreplaced:     make(map[string]bool),
		kinds:          make(map[string]kind),
		loggedLimits:   make(map[int]bool),
		risks:          make(map[string]risk),
		examinedIn:     make(map[string]int),
		lengthChecks:   make(map[string]*lengthCheck),
		otherConsumers: make(map[string]otherConsumers),
		silentLocks:    make(map[string]bool),
		change:         make(chan struct{}, 1),

		lengthInterval: lengthInterval,
		recoveryTime:   recoveryTime,
	}
	if opts.Management != "" {
		if b.management, err = OpenManagement(url, opts.Management); err != nil {
			return nil, err
		}
	}
	b.health = &health{log: b.log, changed: wait.NewSignal()}
	b.life, b.end = context.WithCancel(context.Background())
	b.publishing = newConnection(b, "publishing")
	b.consuming = newConnection(b, "consuming")
	b.declaring = newConnection(b, "declaring")
	b.prober.broker, b.prober.pause = b, probePause
	return b, nil
}

// Close waits up to a second for the confirmation of published messages, returns
// unconfirmed deliveries to their queues, and disconnects, which may take another second.
// Blocked calls return [broker.ErrClosed]. The error is always nil.
func (b *Broker) Close() error {
	b.once.Do(b.shutDown)
	return nil
}

// shutdownTime is how long [Broker.Close] waits for confirmations, and then for the connections
// to close gracefully.
const shutdownTime = time.Second

func (b *Broker) shutDown() {
	b.mu.Lock()
	b.closed = true // from now on, nothing is added to the following maps
	publishers := slices.Collect(maps.Keys(b.publishers))
	consumers := slices.Collect(maps.Keys(b.consumers))
	b.mu.Unlock()
	for _, c := range consumers {
		c.stop()
	}
	for _, p := range publishers {
		p.finish()
	}
	timeout := time.AfterFunc(shutdownTime, func() {
		for _, p := range publishers {
			p.stop()
		}
	})
	defer timeout.Stop()
	for _, p := range publishers {
		<-p.ended
	}
	for _, c := range consumers {
		c.awaitEnd()
	}
	b.end()
	deadline := time.Now().Add(shutdownTime)
	var wg sync.WaitGroup
	for _, c := range b.connections() {
		wg.Go(func() { c.close(deadline) })
	}
	wg.Wait()
}

// connections returns the connections for all purposes, with all connections of their chains.
func (b *Broker) connections() []*connection {
	return slices.Concat(b.publishing.chain(), b.consuming.chain(), b.declaring.chain())
}
