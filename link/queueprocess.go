package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
	"peerlink/stomp"
)

// A QueueSender and a QueueDrainer are for operators that run a node as many processes
// with one task each, as the reference implementation does, instead of one [Service].
// Then other programs make the objects in the broker and mark peers as active.

var (
	// ErrNotActive means that there must be no traffic with a peer: it is not
	// registered, or not marked as active yet, or deactivated.
	ErrNotActive = errors.New("link: peer is not active")
	// ErrNotDeactivated means that a peer's queue must not be drained: its
	// messages are to be sent.
	ErrNotDeactivated = errors.New("link: peer is not deactivated")
)

// QueueSender sends the messages in one queue to one peer.
type QueueSender struct {
	*shared
	peerID, queue string
}

// NewQueueSender returns a QueueSender. It does nothing until [QueueSender.Run] is called.
func NewQueueSender(cfg Config, peerID, queue string) *QueueSender {
	return &QueueSender{newShared(cfg), peerID, queue}
}

// Run sends the messages over one connection, and returns why the connection has ended,
// or nil if ctx is done. When the connection is idle ([Config.IdleTimeout]), Run closes
// it and makes another one as soon as there is something to send. While another process
// sends from the queue, Run waits. It returns [ErrNotActive] if the peer is not active,
// and as soon as the peer is deactivated or suspended; it also ends when the key of this node's
// server certificate is revoked ([ErrOwnKeyRevoked]). When this node's certificate is renewed,
// another connection replaces the first.
//
// After an ERROR of the peer, and after a TLS handshake that is not complete within
// [Config.HandshakeTimeout], Run makes another connection, until eight in a row have failed
// like this: setting aside a message that the peer refuses, and detecting that the path drops
// large packets, take several attempts of the same process.
func (q *QueueSender) Run(ctx context.Context) error {
	st, err := q.peerState()
	if err != nil {
		return err
	}
	p := q.peers.getOrAdd(q.peerID)
	p.replaceState(st)
	return q.runOne(ctx, func(ctx, graceCtx context.Context) error {
		ctx, stop := context.WithCancelCause(ctx)
		defer stop(nil)
		q.wg.Go(func() { stop(q.watchPeer(ctx)) })
		return q.send(ctx, graceCtx, q.newSender(p, q.queue))
	})
}

// send makes one connection after the other. It returns the error of the last one, or the cause of
// the end of ctx.
func (q *QueueSender) send(ctx, graceCtx context.Context, sd *sender) error {
	defer q.queuePacer.addSender()()
	r := q.newRetries()
	failed := 0 // connections in a row that have ended with an error; a successful one begins a new row
	for {
		deadLetters := sd.consecutiveDeadLetters
		ok, err := sd.attempt(ctx, graceCtx)
		if ok || sd.consecutiveDeadLetters != deadLetters { // or a refused message has become a dead letter
			r.succeeded()
			failed = 0
		}
		failed++
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case sd.recordStandby(err):
			pause, failed = q.standbyPause(), 0
		case needsSameProcess(err) && failed < maxAttempts:
			pause = r.pause()
			sd.logThrottled(sd.log, slog.LevelWarn, "the connection to the peer has failed, trying again", "err", err, "pause", pause.Round(time.Millisecond))
		default:
			return err
		}
		if err := wait.Sleep(ctx, pause); err != nil {
			return context.Cause(ctx)
		}
	}
}

// maxAttempts is how many connections in a row [QueueSender.Run] makes that fail for a reason
// for which needsSameProcess is true. It is more than the attempts after which a refused message
// is set aside, also if an ERROR does not identify the message (one more than maxRefusals), and
// after which a path that drops large packets is detected (one more than maxLargeHellos).
const maxAttempts = 8

// needsSameProcess reports whether this process has to try again after an error. After any other
// error, Run returns, and another process may be started.
func needsSameProcess(err error) bool {
	return errors.As(err, new(*stomp.ServerError)) || errors.Is(err, errTLSTimeout)
}

// peerState returns the state for sending to the peer, or [ErrNotActive].
func (q *QueueSender) peerState() (*peerState, error) {
	p, err := q.cfg.Dir.Peer(q.peerID)
	if err != nil {
		return nil, err
	}
	if p.State() != "active" {
		return nil, fmt.Errorf("%w: %s is %s", ErrNotActive, q.peerID, p.State())
	}
	if p.RevokedErr != nil {
		return nil, fmt.Errorf("peer %s: %w", q.peerID, p.RevokedErr)
	}
	view, err := View(q.cfg.Dir, p)
	if err != nil {
		return nil, err
	}
	return &peerState{Peer: p, view: view, binding: broker.PeerBinding{PeerID: q.peerID, Queues: []string{q.queue}}}, nil
}

// watchPeer checks the peer, and this node's certificate, every [Config.PollInterval]. It
// returns [ErrNotActive] when the peer is deactivated or suspended, [ErrOwnKeyRevoked] when the
// key of this node's server certificate is revoked, or the error of ctx when ctx is done.
func (q *QueueSender) watchPeer(ctx context.Context) error {
	for {
		if err := q.waitForPoll(ctx); err != nil {
			return err
		}
		q.reloadCertificate()
		// An error is ignored: the directory may not be readable for a moment, or may be that of
		// another node.
		if q.cfg.Dir.CheckIdentity() != nil {
			continue
		}
		if err := q.cfg.Certificate.checkRevoked(); err != nil {
			return err
		}
		if date, err := q.cfg.Dir.Deactivated(q.peerID); err == nil && date != "" {
			return fmt.Errorf("%w: %s has been deactivated", ErrNotActive, q.peerID)
		}
		if s, err := q.cfg.Dir.Suspended(q.peerID); err == nil && s != nil {
			return fmt.Errorf("%w: the link with %s is suspended", ErrNotActive, q.peerID)
		}
	}
}

// waitForPoll waits for the time of the next poll, or for a value from [Config.Recheck].
func (q *QueueSender) waitForPoll(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-q.cfg.Recheck:
		q.log.Info("looking at the node's directory again")
	case <-time.After(q.cfg.PollInterval):
	}
	return nil
}

// QueueDrainer answers the messages in one queue on behalf of a deactivated peer.
type QueueDrainer struct {
	*shared
	peerID, queue string
}

// NewQueueDrainer returns a QueueDrainer. It does nothing until [QueueDrainer.Run] is
// called. It needs no [Config.Certificate].
func NewQueueDrainer(cfg Config, peerID, queue string) *QueueDrainer {
	return &QueueDrainer{newShared(cfg), peerID, queue}
}

// Run answers the messages, those that arrive later included, until ctx is done (it then
// returns nil) or something fails. While another process consumes the queue, Run waits.
// It returns [ErrNotDeactivated] if the peer is not deactivated.
func (q *QueueDrainer) Run(ctx context.Context) error {
	p, err := q.cfg.Dir.Peer(q.peerID)
	if err != nil {
		return err
	}
	if p.SubCA == nil || p.Deactivated == "" {
		return fmt.Errorf("%w: %s is %s", ErrNotDeactivated, q.peerID, p.State())
	}
	successor, err := q.cfg.Dir.CurrentSuccessor(q.peerID)
	if err != nil {
		return err
	}
	if successor != "" {
		return fmt.Errorf("%w: peer %s was replaced by %s, which has its accounts now: the messages in queue %s must not be answered, but sent to %s", ErrNotDeactivated, q.peerID, successor, q.queue, successor)
	}
	view, err := View(q.cfg.Dir, p)
	if err != nil {
		return err
	}
	return q.runOne(ctx, func(ctx, graceCtx context.Context) error {
		d := q.newDrainer(q.peerID, q.queue, view)
		defer d.report("draining ends")
		standby := false
		for {
			err := d.drain(ctx, graceCtx, 0)
			if errors.Is(err, broker.ErrReopen) {
				continue
			}
			if !errors.Is(err, broker.ErrInUse) {
				return err
			}
			if !standby {
				d.log.Info("another process uses this queue, standing by")
			}
			standby = true
			if err := wait.Sleep(ctx, q.standbyPause()); err != nil {
				return err
			}
		}
	})
}

// runOne calls f with ctx and a graceCtx (see graceContext), and waits for the goroutines that f
// has started. It returns the error of f, or nil if ctx is done.
func (s *shared) runOne(ctx context.Context, f func(ctx, graceCtx context.Context) error) error {
	defer s.logLimiter.Close()
	graceCtx, cancel := s.graceContext(ctx, context.WithoutCancel(ctx))
	defer cancel()
	err := f(ctx, graceCtx)
	s.wg.Wait()
	if ctx.Err() != nil {
		return nil
	}
	return err
}
