// Package link keeps the links between a node and its peers: permanent,
// bi-directional, authenticated and encrypted.
//
// A link is made of connections, each of which carries messages one way. To send, the
// node dials one of the peer's servers and is a STOMP client there ([sender]); to
// receive, it listens, and is a STOMP server for the peers that dial ([receiver]).
// Connections come and go. The link is permanent because a message stays in the broker
// of the sending node until the receiving node has confirmed that the message is
// durable in its own broker:
//
//	application → broker (peer's queue) → smp.Outgoing → stomp client → TLS ══ TLS → stomp server → smp.Incoming → broker (inbox)
//	                     ↑ confirm up to n ←──────── receipt ≤ n ──────────────────── stored durably ←─────┘
//
// There is no unbounded queue on the way: backpressure propagates from broker to broker
// through the TCP window. Batches form by themselves.
//
// A client is trusted only as far as it is authenticated, and everything that others
// can cause in this process is bounded: before the handshake by [pendingconns.Set] and a
// [handshakeLimiter], after it for each peer ([receiver.waitForCapacity],
// [unstoredLimiter]), and in the log ([logthrottle.Limiter]). docs/security.md lists the
// attackers that are considered. A connection on which nothing is sent for
// [Config.IdleTimeout] is closed until there is something to send.
//
// One queue leads to a peer or, with a broker that distributes the messages over
// several, as many as the node's directory specifies. Then each queue has its own
// connection ([Config.AllQueues]).
//
// Several services may serve one node, on brokers that they share. Each queue has one
// sender at a time; the senders of the other services stand by ([queuePacer]). The
// messages queued for a peer that has been deactivated are answered on behalf of the
// peer ([drainer]).
//
// A [Service] does this for all peers of a node in one process. It watches the node's
// directory: peers that are registered, moved or deactivated are noticed within
// seconds, without a restart, even while the broker is unreachable ([bindJob]). The new
// addresses of peers that move are fetched from where they publish their info-bundle
// ([Follow]). For operators that run a node as many processes, a Service can be made that
// only receives ([NewReceiveOnly]), a [QueueSender] only sends from one queue, and a
// [QueueDrainer] only drains one.
//
// What happens is recorded for each direction of a link, where it happens ([tracker]), and shown to
// the operator as one verdict ([LinkState]). A [Prober] tests the path to a peer without a service.
//
// One goroutine polls the node's directory and reconciles the peers ([peerSet], [peer])
// with it. Only this goroutine changes their state. Connections use an immutable copy
// of the state ([peerState]), and end when the state changes in a way that matters
// ([generation]).
package link

import (
	"context"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"peerlink/broker"
	"peerlink/internal/logthrottle"
)

// Service keeps all links of one node.
type Service struct {
	*shared
	acceptor   *acceptor
	reconciler *reconciler
	started    time.Time
	listen     atomic.Pointer[net.Addr] // where peers connect, the first of several; nil before Run
}

// shared is what all goroutines of a [Service], [QueueSender] or [QueueDrainer] use.
type shared struct {
	cfg            Config
	log            *slog.Logger
	logLimiter     *logthrottle.Limiter // for entries that peers or this machine cause
	peers          *peerSet
	queuePacer     *queuePacer
	rebalancer     *rebalancer
	dials          *rate.Limiter // limits attempts to connect to peers
	quotas         broker.Quotas // nil if the broker has none
	brokerProblems brokerProblems
	receiveOnly    bool // queues are neither bound nor sent from

	wg sync.WaitGroup // all goroutines that Run has started
}

func newShared(cfg Config) *shared {
	cfg.setDefaults()
	if cfg.Certificate != nil {
		cfg.Certificate.setClock(cfg.Now)
	}
	quotas, _ := cfg.Broker.(broker.Quotas)
	return &shared{
		quotas:     quotas,
		cfg:        cfg,
		log:        cfg.Log,
		logLimiter: logthrottle.New(),
		peers:      newPeerSet(cfg.MaxRate, newUnstoredLimits(cfg.Broker)),
		queuePacer: newQueuePacer(cfg.AcquireSpread),
		rebalancer: newRebalancer(3 * cfg.StandbyInterval),
		dials:      rate.NewLimiter(rate.Limit(cfg.MaxDialRate), cfg.MaxDialRate),
	}
}

// New returns a Service. It does nothing until [Service.Run] is called.
func New(cfg Config) *Service {
	s := newShared(cfg)
	return &Service{shared: s, acceptor: newAcceptor(s), reconciler: newReconciler(s), started: time.Now()}
}

// NewReceiveOnly returns a Service that accepts connections from all active peers and
// sends nothing. Other programs make the objects in the broker and mark peers as active.
func NewReceiveOnly(cfg Config) *Service {
	s := New(cfg)
	s.receiveOnly = true
	return s
}

// Run keeps the links until ctx is done. Peers connect to the listeners, at least one, which Run closes.
// When ctx is done, Run stops accepting connections, confirms to the peers what is
// stored, waits for the confirmations of sent messages, disconnects and returns nil. It
// returns an error only if it cannot start or continue at all.
func (s *Service) Run(ctx context.Context, listeners ...net.Listener) error {
	defer s.logLimiter.Close()
	defer s.acceptor.unauthenticatedLog.Close()
	addr := listeners[0].Addr()
	s.listen.Store(&addr)
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	graceCtx, cancel := s.graceContext(ctx, context.WithoutCancel(ctx))
	defer cancel()
	if err := s.reconciler.reconcile(ctx, graceCtx); err != nil {
		closeAll(listeners)
		return err
	}
	s.warnFewOpenFiles()
	s.reconciler.awaitBindJobs(ctx, graceCtx)
	s.reconciler.setHealth(nil)
	if s.cfg.Serving != nil {
		s.cfg.Serving()
	}
	failed := make(chan error, 1+len(listeners))
	for _, l := range listeners {
		s.wg.Go(func() { failed <- s.acceptor.accept(ctx, graceCtx, l) })
	}
	s.wg.Go(func() {
		if err := s.reconciler.reconcileLoop(ctx, graceCtx); err != nil {
			failed <- err
		}
	})
	s.wg.Go(func() { s.watchExpiry(ctx) })
	s.wg.Go(func() { s.watchVerdicts(ctx) })

	var err error
	select {
	case <-ctx.Done():
	case err = <-failed:
	}
	stopped := ctx.Err() != nil
	stop()
	closeAll(listeners)
	s.reconciler.setHealth(errNotServing)
	s.log.Info("stopping", "drain_timeout", s.cfg.DrainTimeout)
	s.wg.Wait()
	if stopped {
		return nil
	}
	return err
}

func closeAll(listeners []net.Listener) {
	for _, l := range listeners {
		l.Close()
	}
}

// graceContext returns a context that outlives ctx, so that connections can end in good
// order after ctx is done. graceCtx is canceled one second later than
// [Config.DrainTimeout] after ctx, or when parent is canceled, and aborts what is still
// in progress then. Every goroutine has its own way to end within DrainTimeout; the
// additional second is for those that a peer or the broker blocks. The caller calls cancel
// when the connections have ended.
//
// Throughout the package, a function with the parameters ctx and graceCtx ends in good
// order when ctx is done, and aborts its work when graceCtx is done.
func (s *shared) graceContext(ctx, parent context.Context) (graceCtx context.Context, cancel func()) {
	graceCtx, cancelGrace := context.WithCancel(parent)
	stopWatching := context.AfterFunc(ctx, func() {
		late := time.AfterFunc(s.cfg.DrainTimeout+time.Second, cancelGrace)
		context.AfterFunc(graceCtx, func() { late.Stop() })
	})
	return graceCtx, func() {
		stopWatching()
		cancelGrace()
	}
}
