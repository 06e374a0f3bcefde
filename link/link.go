// Package link keeps the links between a node and its peers: permanent,
// bi-directional, authenticated and encrypted.
//
// A link is made of connections, each of which carries messages one way. To
// send, the node dials one of the peer's servers and is a STOMP client there
// ([sender]); to receive, it listens, and is a STOMP server to whoever dials
// ([receiver]). Connections come and go. What makes the link permanent is that
// a message stays in the broker of the sending node until the receiving node
// has said that its own broker holds it, durably:
//
//	application → broker (peer's queue) → smp.Outgoing → stomp client → TLS ══ TLS → stomp server → smp.Incoming → broker (inbox)
//	                     ↑ confirm up to n ←──────── receipt ≤ n ──────────────────── stored durably ←─────┘
//
// There is no queue without a bound on the way: back pressure travels from
// broker to broker through the TCP window. Batches form by themselves.
//
// Nobody is trusted beyond what he has proved, and everything that others can make
// this side do is bounded: before the handshake by a [gate], after it for each peer
// ([receiver.hold]), and in the log ([repeats]). A connection that has nothing to
// send rests ([Config.IdleTimeout]). docs/security.md tells who may be hostile.
//
// The queues that lead to a peer are one, or with a broker that spreads the
// messages over several, as many as the node's directory says: then each has a
// connection of its own ([Config.AllQueues]).
//
// Several services may serve one node, on brokers that they share. Each queue
// has one sender at a time; the others stand by ([claims]). What is queued for
// a peer that has been deactivated is answered in its name ([drainer]).
//
// A [Service] does this for all peers of a node in one process. It watches the
// node's directory ([roster]): peers that become registered, move, or are
// deactivated are noticed within seconds, without a restart. Peers that publish
// their info-bundle are found again when they move ([Follow]).
package link

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/broker"
	"peerlink/node"
	"peerlink/stomp"
)

// Config says what a [Service] needs. Zero values of the optional fields mean
// the defaults given with them.
type Config struct {
	Dir         *node.Dir
	Broker      broker.Broker
	Listener    net.Listener // peers connect here; closed by the Service; not for Send and Drain
	Certificate *Certificate // what this node shows to its peers
	Log         *slog.Logger
	Serving     func() // called once, when the links are being kept; may be nil

	// AllQueues makes the service use as many queues for a peer as the node's
	// directory says, each with a connection of its own. Otherwise the first
	// carries everything.
	AllQueues    bool
	QueuePattern QueuePattern // how a peer's queues are called; DefaultQueuePattern

	Follow    Follow          // peers that move
	HeartBeat stomp.HeartBeat // what to offer and to ask for on all connections

	HandshakeTimeout   time.Duration // for a TLS handshake; 5 s
	ConnectTimeout     time.Duration // for TCP, and for CONNECT; 10 s
	IdleTimeout        time.Duration // after which a connection with nothing to send rests; 10 min, negative: never
	DrainTimeout       time.Duration // for confirming what is stored when the service stops; 5 s
	PollInterval       time.Duration // between two looks at the node's directory; 1 s
	MaxConnsPerPeer    int           // accepted from one peer at once; 10
	MaxHandshakes      int           // going on at once, a quarter of them of one source; 256
	MaxHandshakeRate   int           // begun in a second; 200
	MaxRate            int           // messages taken from one peer in a second; no limit
	Window             int           // messages sent and not confirmed, per connection; 1,000
	RetryMin, RetryMax time.Duration // pauses between attempts to reach a peer; 250 ms and 2 min

	// ClaimSpread is for brokers that several services of the node share. A
	// service that is alone takes so long until it sends from all queues; of
	// several that start together, each gets about as many. 0 means at once.
	ClaimSpread  time.Duration
	ClaimPause   time.Duration // about how long between two looks at a queue that another process uses; 3 s
	DrainedAfter time.Duration // how long a deactivated peer's queue must be empty to count as drained; 1 min
	DrainPause   time.Duration // until the next look at a queue that is drained; 15 min

	Now func() time.Time // the time of day, by which certificates and timestamps are judged; time.Now
}

func (c *Config) setDefaults() {
	setDefault(&c.QueuePattern, DefaultQueuePattern)
	setDefault(&c.HandshakeTimeout, 5*time.Second)
	setDefault(&c.ConnectTimeout, 10*time.Second)
	setDefault(&c.IdleTimeout, 10*time.Minute)
	setDefault(&c.DrainTimeout, 5*time.Second)
	setDefault(&c.PollInterval, time.Second)
	setDefault(&c.MaxConnsPerPeer, 10)
	setDefault(&c.MaxHandshakes, 256)
	setDefault(&c.MaxHandshakeRate, 200)
	setDefault(&c.Window, 1000)
	setDefault(&c.RetryMin, 250*time.Millisecond)
	setDefault(&c.RetryMax, 2*time.Minute)
	c.Follow.setDefaults()
	setDefault(&c.ClaimPause, 3*time.Second)
	setDefault(&c.DrainedAfter, time.Minute)
	setDefault(&c.DrainPause, 15*time.Minute)
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}

// Service keeps all links of one node.
type Service struct {
	cfg     Config
	log     *slog.Logger
	roster  *roster
	claims  *claims
	gate    *gate
	repeats *repeats
	fetches chan struct{} // one for each info-bundle that is being fetched

	started  time.Time
	rejected rejections
	trouble  atomic.Pointer[error] // see Trouble

	receiveOnly bool // see Receive

	wg sync.WaitGroup // every goroutine that Run started
}

// New makes a Service. It does nothing until [Service.Run].
func New(cfg Config) *Service {
	cfg.setDefaults()
	if cfg.Certificate != nil { // Drain shows none
		cfg.Certificate.setClock(cfg.Now)
	}
	s := &Service{
		cfg:    cfg,
		log:    cfg.Log,
		roster: newRoster(cfg.MaxRate),
		claims: newClaims(cfg.ClaimSpread),
		gate: newGate(gateLimits{
			handshakes: cfg.MaxHandshakes,
			perSource:  max(1, cfg.MaxHandshakes/4),
			waiting:    4 * cfg.MaxHandshakes,
			perSecond:  cfg.MaxHandshakeRate,
		}),
		repeats: newRepeats(),
		fetches: make(chan struct{}, maxFetches),
		started: time.Now(),
	}
	s.setTrouble(errNotServing)
	return s
}

// Run keeps the links until ctx is done. Then it stops accepting connections,
// confirms to the peers what is stored, waits for confirmations of what was
// sent, disconnects and returns nil. It returns an error only if it can not
// start or go on at all.
func (s *Service) Run(ctx context.Context) error {
	defer s.repeats.close()
	// Connections outlive ctx by the time they need to end cleanly.
	connCtx, cut := context.WithCancel(context.WithoutCancel(ctx))
	defer cut()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	if err := s.scan(ctx, connCtx); err != nil {
		s.cfg.Listener.Close()
		return err
	}
	s.setTrouble(nil)
	if s.cfg.Serving != nil {
		s.cfg.Serving()
	}
	failed := make(chan error, 1)
	s.wg.Go(func() { failed <- s.accept(ctx, connCtx) })
	s.wg.Go(func() { s.watch(ctx, connCtx) })
	s.wg.Go(func() { s.watchExpiry(ctx) })

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopped := ctx.Err() != nil
	stop()
	s.cfg.Listener.Close()
	s.setTrouble(errNotServing)
	s.log.Info("stopping", "drain_timeout", s.cfg.DrainTimeout)
	// Every goroutine has its own way to end within DrainTimeout; the timer is
	// for those that a peer would hold up.
	timer := time.AfterFunc(s.cfg.DrainTimeout+time.Second, cut)
	defer timer.Stop()
	s.wg.Wait()
	if stopped {
		return nil
	}
	return err
}
