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
// this side do is bounded: before the handshake by [pendingconns.Set] and a
// [handshakeLimiter], after it for each peer
// ([receiver.waitForCapacity]), and in the log ([logthrottle.Limiter]). A connection that has nothing to
// send rests ([Config.IdleTimeout]). docs/security.md says who may be hostile.
//
// The queues that lead to a peer are one, or with a broker that spreads the
// messages over several, as many as the node's directory says: then each has a
// connection of its own ([Config.AllQueues]).
//
// Several services may serve one node, on brokers that they share. Each queue
// has one sender at a time; the others stand by ([queuePacer]). What is queued for
// a peer that has been deactivated is answered in its name ([drainer]).
//
// A [Service] does this for all peers of a node in one process. It watches the
// node's directory: peers that become registered, move, or are deactivated are
// noticed within seconds, without a restart, also while the broker is away
// ([bindJob]). Peers that publish their info-bundle are found again when they move
// ([Follow]). [Service.Receive], [Service.Send] and [Service.Drain] do one of these
// things each, for those who run a node as many processes.
//
// One goroutine scans the directory, and alone changes what is known of the peers
// ([peerSet], [peer]). What carries messages reads that as a whole ([peerState]), and
// ends when it has changed in a way that matters ([generation]).
package link

import (
	"context"
	"log/slog"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peerlink/internal/logthrottle"
	"peerlink/internal/pendingconns"
	"peerlink/internal/pulse"
	"peerlink/node"
)

// Service keeps all links of one node.
type Service struct {
	cfg             Config
	log             *slog.Logger
	peers           *peerSet
	queuePacer      *queuePacer
	rebalancer      *rebalancer
	pendingConns    *pendingconns.Set[netip.Prefix] // without a complete ClientHello
	handshakes      *handshakeLimiter
	verifySemaphore *verifySemaphore
	dials           *rate.Limiter        // paces attempts to reach peers
	logLimiter      *logthrottle.Limiter // of peers and of this machine
	strangerLimiter *logthrottle.Limiter // of those who are not authenticated
	fetches         chan struct{}        // has an element for each info-bundle that is being fetched

	bindSlots    chan struct{} // has an element for each bind job that is being run
	bindsDone    chan *peer    // those whose bind job is done
	pendingBinds int           // bind jobs not taken out of bindsDone; belongs to the goroutine that scans

	stompTOMLStamp *[2]node.FileStamp // as the node's stomp.toml was last looked at; belongs to the goroutine that scans

	started        time.Time
	rejected       rejections
	health         atomic.Pointer[error] // see Trouble
	reconcilePulse pulse.Pulse           // of the goroutine that scans

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
		cfg:          cfg,
		log:          cfg.Log,
		peers:        newPeerSet(cfg.MaxRate),
		queuePacer:   newQueuePacer(cfg.AcquireSpread),
		rebalancer:   newRebalancer(3 * cfg.StandbyInterval),
		pendingConns: pendingconns.New[netip.Prefix](cfg.MaxPendingConns),
		handshakes: newHandshakeLimiter(handshakeLimits{
			atOnce:    cfg.MaxHandshakes,
			reserved:  cfg.MaxHandshakes / 4,
			waiting:   4 * cfg.MaxHandshakes,
			perSecond: cfg.MaxHandshakeRate,
			grace:     cfg.HandshakeTimeout / 5,
		}),
		verifySemaphore: newVerifySemaphore(),
		dials:           rate.NewLimiter(rate.Limit(cfg.MaxDialRate), cfg.MaxDialRate),
		logLimiter:      logthrottle.New(),
		strangerLimiter: logthrottle.NewForStrangers(),
		fetches:         make(chan struct{}, maxFetches),
		bindSlots:       make(chan struct{}, maxBindJobs),
		bindsDone:       make(chan *peer),
		started:         time.Now(),
	}
	s.setHealth(errNotServing)
	return s
}

// Run keeps the links until ctx is done. Then it stops accepting connections,
// confirms to the peers what is stored, waits for confirmations of what was
// sent, disconnects and returns nil. It returns an error only if it can not
// start or go on at all.
func (s *Service) Run(ctx context.Context) error {
	defer s.logLimiter.Close()
	defer s.strangerLimiter.Close()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	connCtx, cut := s.graceContext(ctx, context.WithoutCancel(ctx))
	defer cut()
	if err := s.reconcile(ctx, connCtx); err != nil {
		s.cfg.Listener.Close()
		return err
	}
	s.warnFewOpenFiles()
	s.awaitBindJobs(ctx, connCtx)
	s.setHealth(nil)
	if s.cfg.Serving != nil {
		s.cfg.Serving()
	}
	failed := make(chan error, 1)
	s.wg.Go(func() { failed <- s.accept(ctx, connCtx) })
	s.wg.Go(func() { s.reconcileLoop(ctx, connCtx) })
	s.wg.Go(func() { s.watchExpiry(ctx) })

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopped := ctx.Err() != nil
	stop()
	s.cfg.Listener.Close()
	s.setHealth(errNotServing)
	s.log.Info("stopping", "drain_timeout", s.cfg.DrainTimeout)
	s.wg.Wait()
	if stopped {
		return nil
	}
	return err
}

// graceContext makes the context of connections that are asked to end when ctx is done:
// it lasts longer, by the time that they need to end cleanly, unless parent ends
// before. Every goroutine has its own way to end within [Config.DrainTimeout]; the
// second more is for those that a peer, or the broker, would hold up.
func (s *Service) graceContext(ctx, parent context.Context) (connCtx context.Context, cut func()) {
	connCtx, cancel := context.WithCancel(parent)
	forget := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(s.cfg.DrainTimeout+time.Second, cancel)
		context.AfterFunc(connCtx, func() { late.Stop() })
	})
	return connCtx, func() {
		forget()
		cancel()
	}
}
