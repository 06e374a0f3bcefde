// Package rabbitmq is the message store on RabbitMQ: a [broker.Broker] with
// exactly the exchanges, queues and headers of the reference implementation,
// so that the network's applications work with it unchanged (section "RabbitMQ
// objects of the reference" of the messages specification).
//
// # Objects
//
//	                      binding key                            peer.<ID>.0 ──▶ peer.<ID>.0.XQ
//	application ──▶ to_creditors ──────────▶ aa.x.<ID> ──────┬──▶ peer.<ID>.1 ──▶ peer.<ID>.1.XQ
//	                (topic)                  (x-random)      └──▶ …               set aside
//
//	peer ──▶ accounts_in ──▶ whatever the application has bound to it
//
// [Broker.Bind] makes everything in the upper line. The inbox exchange is
// the application's to declare. Queues that exist are taken as they are; new
// ones are of [Options.QueueType].
//
// # Taking out
//
// A [broker.Consumer] is a channel with one consumer, which is the queue's only
// one, in whatever process ([broker.ErrInUse]): as long as the channel is open, it has
// an exclusive queue beside it, peer.<ID>.0.lock, which RabbitMQ refuses to others. RabbitMQ sends up to
// [Options.Prefetch] messages ahead; they wait in memory, and whatever has
// arrived is the next batch. A confirmation is remembered, and one
// acknowledgement for all that came since the last is sent by the goroutine
// that also receives: a peer that confirms each message costs no write for
// each.
//
// A message that is set aside is published to the queue's dead-letter queue
// with its properties and four headers more (x-peerlink-reason, the time, and
// the exchange and routing key that it came with), and acknowledged when RabbitMQ
// has confirmed that. Rejecting it would be one step instead of two, but would
// not say why. A crash between the two steps leaves it in both queues.
//
// The operator's view ([broker.DeadLetters]) takes the messages of a dead-letter queue
// and gives them back, because AMQP knows no other way to look at them. It shows
// what others have rejected, too. The ID of a message is a digest of what it
// says.
//
// # Putting in
//
// A [broker.Publisher] is a channel in confirm mode. Messages are published,
// persistent and mandatory, as they come, up to [Options.MaxPending] ahead of
// RabbitMQ's confirmations. These arrive in any order. A goroutine follows them
// in the order of publishing, and reports how far it came when it has to wait:
// that makes the batches. A message that RabbitMQ returns, refuses or does not
// confirm in time ends the stream, with the number of those before it.
//
// # When RabbitMQ fails
//
// There are three connections: one for publishing, because RabbitMQ stops
// reading from it when it is short of memory or disk, one for consuming, and
// one for declaring, because some mistakes cost the connection. (With thousands of
// streams or queues there are more, as a connection has a limited number of channels.) Nothing is
// repaired behind the back of the user. When a connection is lost, the
// Consumers and Publishers on it report an error and are of no use any more;
// what was not acknowledged is in its queue again, and what was not confirmed
// will be sent again by the peer. The next Consume or Publish makes a new
// connection, with pauses that grow from a tenth of a second to five seconds.
// The log gets one line when RabbitMQ is lost, when the reason
// changes, and when it is back.
//
// RabbitMQ may come back with nothing of what it had. So from the first Declare on
// there is a goroutine that makes a lost connection again, and then declares
// everything again, whether or not anybody consumes it: what applications publish
// meanwhile would be dropped. It looks after each peer's objects every minute, too.
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
	// ErrInvalid is reported for names and messages that AMQP can not carry.
	ErrInvalid = errors.New("rabbitmq: invalid")
	// ErrNotGivenOut is reported for a tag that its consumer does not hold: it
	// was never given out, or it was confirmed or set aside since.
	ErrNotGivenOut = errors.New("rabbitmq: message is not given out")
	// ErrBlocked is reported while RabbitMQ takes no messages because it is
	// short of memory or disk.
	ErrBlocked = errors.New("rabbitmq: RabbitMQ takes no messages for now")
	// ErrNotConfirmed ends a stream of messages of which RabbitMQ has refused
	// one, or has not confirmed it within [Options.ConfirmTimeout].
	ErrNotConfirmed = errors.New("rabbitmq: message is not confirmed")
)

// QueueType is a type of queue in RabbitMQ.
type QueueType string

const (
	// Classic queues are what the reference makes. They live on one machine.
	Classic QueueType = "classic"
	// Quorum queues are replicated on the machines of a cluster.
	Quorum QueueType = "quorum"
)

// Options adjust a [Broker]. The zero Options are good.
type Options struct {
	// Logger gets an entry when RabbitMQ is lost, and when it is back; nil means
	// [slog.Default].
	Logger *slog.Logger
	// QueueType is the type of the queues that Declare makes; "" means Classic.
	// Queues that exist keep theirs.
	QueueType QueueType
	// AsideSuffix is what the names of the queues with the messages set aside have behind
	// the name of their queue; "" means ".XQ", as the reference has it. RabbitMQ may have
	// policies for those, which AMQP does not show, and by which messages are dropped.
	AsideSuffix string
	// Prefetch is how many messages a Consumer has that are not confirmed, at
	// most 65,535; 0 means 2,000. RabbitMQ sends no more before: it must not be
	// less than what is on its way to the peer. Large messages are fewer: a
	// Consumer holds 8 MiB of them at most.
	Prefetch int
	// MaxPending is how many messages a Publisher has on their way to disk; 0
	// means 1,000.
	MaxPending int
	// ConnectTimeout bounds an attempt to connect, and each exchange with
	// RabbitMQ that has an answer; 0 means 10 s.
	ConnectTimeout time.Duration
	// ConfirmTimeout is how long a published message may remain without a
	// confirmation; 0 means 20 s.
	ConfirmTimeout time.Duration
}

func (o Options) withDefaults() (Options, error) {
	o.Logger = cmp.Or(o.Logger, slog.Default())
	o.QueueType = cmp.Or(o.QueueType, Classic)
	o.AsideSuffix = cmp.Or(o.AsideSuffix, deadLetterSuffix)
	o.Prefetch = cmp.Or(max(o.Prefetch, 0), 2000)
	o.MaxPending = cmp.Or(max(o.MaxPending, 0), 1000)
	o.ConnectTimeout = cmp.Or(max(o.ConnectTimeout, 0), 10*time.Second)
	o.ConfirmTimeout = cmp.Or(max(o.ConfirmTimeout, 0), 20*time.Second)
	if o.QueueType != Classic && o.QueueType != Quorum {
		return o, fmt.Errorf("%w: queue type %q, expected %s or %s", ErrInvalid, o.QueueType, Classic, Quorum)
	}
	if len(o.AsideSuffix) > maxName/2 || o.AsideSuffix[0] != '.' || o.AsideSuffix == lockQueue("") {
		return o, fmt.Errorf("%w: suffix %q, expected one that begins with a point, and is not %s", ErrInvalid, o.AsideSuffix, lockQueue(""))
	}
	if o.Prefetch > math.MaxUint16 {
		return o, fmt.Errorf("%w: prefetch of %d messages, at most %d are possible", ErrInvalid, o.Prefetch, math.MaxUint16)
	}
	return o, nil
}

// Broker is a RabbitMQ server or cluster. It implements [broker.Broker]; all
// its methods are safe for concurrent use.
type Broker struct {
	address address
	opts    Options
	log     *slog.Logger
	health  *health

	life context.Context // ends when the broker is closed
	end  context.CancelFunc

	publishing, consuming, declaring *connection

	once           sync.Once // for closing
	mu             sync.Mutex
	closed         bool
	consumers      map[*consumer]struct{}
	publishers     map[*publisher]struct{}
	declared       map[string]declaration    // by peer
	prefetch       map[string]int            // by queue, where it is not that of opts
	kinds          map[string]kind           // by queue
	limits         map[int]bool              // delivery limits that the log has reported
	risks          map[string]risk           // by dead-letter queue
	otherConsumers map[string]otherConsumers // by queue
	silent         map[string]bool           // queues about whose locks RabbitMQ does not answer

	probe         probe
	keeping       sync.Once     // starts keep
	checkInterval time.Duration // the constant, but in tests
	tallyPause    time.Duration // the constant, but in tests
	change        chan struct{} // has an element while objects of a peer are changed
}

var (
	_ broker.Broker         = (*Broker)(nil)
	_ broker.QueueRequester = (*Broker)(nil)
	_ broker.QueueYielder   = (*consumer)(nil)
)

// Open makes a Broker for the RabbitMQ at an amqp:// or amqps:// URL, or for a
// cluster at several URLs with commas between them, or at a name with several addresses:
// then connections are spread over the addresses, and another one is used when one does
// not answer. (For
// amqps, the URL's parameters cacertfile, certfile and keyfile name the files
// to use.) It does not connect: RabbitMQ need not be there yet. The URL's
// password appears in no error and no log.
func Open(url string, opts Options) (*Broker, error) {
	opts, err := opts.withDefaults()
	if err != nil {
		return nil, err
	}
	a, err := parseAddress(url)
	if err != nil {
		return nil, err
	}
	b := &Broker{
		address:        a,
		opts:           opts,
		log:            opts.Logger.With("broker", a.String()),
		consumers:      make(map[*consumer]struct{}),
		publishers:     make(map[*publisher]struct{}),
		declared:       make(map[string]declaration),
		prefetch:       make(map[string]int),
		kinds:          make(map[string]kind),
		limits:         make(map[int]bool),
		risks:          make(map[string]risk),
		otherConsumers: make(map[string]otherConsumers),
		silent:         make(map[string]bool),
		change:         make(chan struct{}, 1),

		checkInterval: checkInterval,
		tallyPause:    tallyPause,
	}
	b.health = &health{log: b.log, changed: wait.NewSignal()}
	b.life, b.end = context.WithCancel(context.Background())
	b.publishing = newConnection(b, "publishing")
	b.consuming = newConnection(b, "consuming")
	b.declaring = newConnection(b, "declaring")
	b.probe.broker = b
	return b, nil
}

// Close waits a moment for the confirmation of what was published, gives what
// was given out and not confirmed back to its queue, and disconnects. Whoever
// is blocked in a call gets [broker.ErrClosed].
func (b *Broker) Close() error {
	b.once.Do(b.shutDown)
	return nil
}

// closeTime is how long Close waits for confirmations, and then for the connections
// to end in good order.
const closeTime = time.Second

func (b *Broker) shutDown() {
	b.mu.Lock()
	b.closed = true // from now on nothing is added to these
	publishers := slices.Collect(maps.Keys(b.publishers))
	consumers := slices.Collect(maps.Keys(b.consumers))
	b.mu.Unlock()
	for _, c := range consumers {
		c.stop()
	}
	for _, p := range publishers {
		p.finish()
	}
	impatient := time.AfterFunc(closeTime, func() {
		for _, p := range publishers {
			p.stop()
		}
	})
	defer impatient.Stop()
	for _, p := range publishers {
		<-p.ended
	}
	for _, c := range consumers {
		c.awaitEnd()
	}
	b.end()
	deadline := time.Now().Add(closeTime)
	var wg sync.WaitGroup
	for _, c := range b.connections() {
		wg.Go(func() { c.close(deadline) })
	}
	wg.Wait()
}

// connections are all that there are.
func (b *Broker) connections() []*connection {
	return slices.Concat(b.publishing.chain(), b.consuming.chain(), b.declaring.chain())
}
