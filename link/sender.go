package link

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"slices"
	"time"

	"peerlink/broker"
	"peerlink/internal/logthrottle"
	"peerlink/internal/wait"
	"peerlink/stomp"
)

// sender sends the messages of one queue to one peer, over one connection at a time,
// while the peer is active.
type sender struct {
	s                      *shared
	peer                   *peer
	queue                  string
	log                    *slog.Logger
	tracker                *tracker
	refusals               *refusals          // how often the peer has refused each message
	standby                bool               // another process sends from the queue, and that has been logged
	requestedAt            time.Time          // when the queue was last requested from that process
	yielded                bool               // the queue was yielded to another process, and no process is known to have acquired it since
	restedAt               time.Time          // when the link began to rest, or was checked last
	keepUntil              time.Time          // the queue is not yielded before this time
	takingTurns            bool               // the last connection was one too many for the peer
	unreachable            bool               // the peer could not be reached at the last attempt
	consecutiveDeadLetters int                // refused messages made dead letters since the peer last confirmed a message
	leftToSendSingly       int                // how many messages to send one at a time, to find the one that the peer refuses
	unidentified           unidentifiedErrors // limits the dead letters because of ERRORs that identify no message
}

// startSenders starts a sender for each queue that has none. The senders of queues that
// are not used any more continue, so that these queues are emptied.
func (r *reconciler) startSenders(ctx, graceCtx context.Context, p *peer, queues []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range queues {
		if p.senders[queue] != nil {
			continue
		}
		sendCtx, stop := context.WithCancel(ctx)
		p.senders[queue] = stop
		sd := r.newSender(p, queue)
		r.wg.Go(func() { sd.run(sendCtx, graceCtx) })
	}
}

// newRetries returns retries with the pauses of the configuration.
func (s *shared) newRetries() *retries { return newRetries(s.cfg.RetryMin, s.cfg.RetryMax) }

func (s *shared) newSender(p *peer, queue string) *sender {
	return &sender{s: s, peer: p, queue: queue, log: s.log.With("peer", p.id, "queue", queue), tracker: new(tracker), refusals: newRefusals()}
}

const (
	// batchSize is the maximum number of messages received from a queue at once.
	batchSize = 256
	// steady is how long a connection must have lasted to count as a success even if no
	// message was confirmed on it.
	steady = 30 * time.Second
	// maxConsecutiveDeadLetters is how many consecutive messages may be refused and
	// made dead letters before the pauses between connections grow.
	maxConsecutiveDeadLetters = 10
)

// run sends the messages of the queue, over one connection after the other, until ctx is
// done. All work is aborted when graceCtx is done.
func (sd *sender) run(ctx, graceCtx context.Context) {
	defer sd.s.queuePacer.addSender()()
	defer sd.peer.trackOut(sd.queue, sd.tracker)()
	defer sd.s.brokerProblems.set(sd.queue, nil)
	r := sd.s.newRetries()
	for ctx.Err() == nil {
		// The channels are obtained before the attempt, so that run also notices an event
		// that happens during the attempt.
		changed, connected, renewed := sd.peer.stateReplaced.Next(), sd.peer.connected.Next(), sd.s.cfg.Certificate.renewed.Next()
		ok, err := sd.attempt(ctx, graceCtx)
		if ctx.Err() != nil || sd.isDeletedFormer(err) {
			return
		}
		pause := sd.pauseAfter(ctx, r, ok, err)
		sd.track(err, pause)
		if pause.uninterrupted {
			changed, connected, renewed = nil, nil, nil
		}
		if !sd.unreachable {
			connected = nil
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause.time):
		case <-pause.freed:
		case <-connected: // the peer is back
			r.reset()
		case <-changed: // the peer may have moved
			r.reset()
		case <-renewed: // the peer may have refused the old certificate
			r.reset()
		}
	}
}

// isDeletedFormer reports whether an error means that the queue does not exist, although nothing is
// routed to it any more, so that it need not exist: it had another name, or led to a replaced peer.
func (sd *sender) isDeletedFormer(err error) bool {
	st := sd.peer.state.Load()
	return errors.Is(err, broker.ErrNoQueue) && st != nil && !slices.Contains(st.binding.Queues, sd.queue)
}

// retryPause is the pause before the next attempt.
type retryPause struct {
	time          time.Duration
	uninterrupted bool            // no event of run ends the pause
	freed         <-chan struct{} // ends the pause: a connection of another queue has ended; may be nil
}

// pauseAfter returns the pause after an attempt with the results ok and err. It records
// and logs failures.
func (sd *sender) pauseAfter(ctx context.Context, r *retries, ok bool, err error) retryPause {
	if ok {
		r.succeeded()
	}
	sd.s.brokerProblems.set(sd.queue, err)
	// The order matters: broker.ErrInUse comes in a *brokerError, and is no failure.
	// recordStandby and mustTakeTurns change sd, too.
	switch {
	case errors.Is(err, errYielded):
		r.succeeded()
		sd.yielded = true
		// Events since the queue was acquired are no reason to acquire it again.
		return retryPause{time: 2 * sd.s.cfg.StandbyInterval, uninterrupted: true}
	case sd.recordStandby(err):
		r.succeeded()
		return retryPause{time: sd.requestAndPause(ctx)}
	case errors.As(err, new(*brokerError)):
		r.reset() // the peer has not failed: the pauses between connections must not grow
		sd.peer.stats.recordError(outgoing, err)
		if r.isNewError(err) {
			sd.logThrottled(sd.log, slog.LevelWarn, brokerUnusable, "err", err)
		}
		return retryPause{time: pauseForBroker()}
	case ok && errors.As(err, new(*certificateExpired)): // logged already
		return retryPause{time: r.pause()}
	case sd.mustTakeTurns(err):
		r.succeeded()
		return retryPause{time: sd.s.turnPause(), freed: sd.peer.connTurns.freed}
	}
	pause := retryPause{time: r.pause()}
	if err != nil {
		sd.peer.stats.recordFailure(err)
		if r.isNewError(err) {
			sd.logThrottled(sd.log, slog.LevelWarn, "no connection to the peer, trying again", "err", err, "pause", pause.time.Round(time.Millisecond))
		}
	}
	return pause
}

// track records the result of an attempt, after which pause follows.
func (sd *sender) track(err error, pause retryPause) {
	s := LinkState{Verdict: VerdictConnecting}
	switch {
	case errors.Is(err, errYielded), sd.standby:
		s = LinkState{Verdict: VerdictElsewhere, Reason: "another process of this node sends from the queue"}
	case pause.freed != nil:
		s = LinkState{Verdict: VerdictResting, Reason: "the peer accepts no more connections at once: the queues that lead to it take turns"}
	case err != nil:
		s = explain(err, sd.peer.id, sd.s.cfg.Now())
		next := time.Now().Add(pause.time)
		s.NextAttempt = &next
	}
	sd.tracker.set(s)
}

// recordBrokerError records that the broker cannot be used, while the connection stays.
func (sd *sender) recordBrokerError(err error) {
	sd.peer.stats.recordError(outgoing, err)
	sd.tracker.set(explain(&brokerError{err}, sd.peer.id, sd.s.cfg.Now()))
}

// brokerError is an error of this node's broker, which the peer has not caused.
type brokerError struct{ error }

func (e *brokerError) Unwrap() error { return e.error }

const brokerUnusable = "the broker can not be used, nothing is sent until it can"

// brokerPause is about how long the pause is between attempts to use this node's broker.
// The broker has pauses of its own between its attempts to connect.
const brokerPause = time.Second

func pauseForBroker() time.Duration { return brokerPause/2 + rand.N(brokerPause) }

// recordStandby records and reports whether err means that another process sends from
// the queue. The first such error in a row is logged.
func (sd *sender) recordStandby(err error) bool {
	was := sd.standby
	sd.standby = errors.Is(err, broker.ErrInUse)
	if sd.standby && !was {
		sd.log.Info("another process sends from this queue, standing by")
	}
	return sd.standby
}

// requestAndPause is called while another process sends from the queue. It requests the
// queue if the last request is long enough ago, and returns the time until the next
// attempt to acquire the queue, which is short after a request.
func (sd *sender) requestAndPause(ctx context.Context) time.Duration {
	const requestedPauseDivisor = 8
	sd.yielded = false
	pause := sd.s.standbyPause()
	if time.Since(sd.requestedAt) < sd.s.cfg.StandbyInterval {
		return pause / requestedPauseDivisor
	}
	if sd.requestQueue(ctx) {
		sd.requestedAt = time.Now()
		return pause / requestedPauseDivisor
	}
	return pause
}

// mustTakeTurns reports whether the sender has to wait until another queue of the peer
// ends its connection: because this sender's time slice is over, or because err means
// that the peer accepts no more connections than it has from this process. In the second
// case, it ends the oldest of these if its time slice is over. The first such error in a
// row is logged.
func (sd *sender) mustTakeTurns(err error) bool {
	if errors.Is(err, errTimeSliceOver) {
		return true
	}
	was := sd.takingTurns
	sd.takingTurns = isTooManyConnections(err) && sd.peer.connTurns.endOldest(sd.s.cfg.ConnTimeSlice)
	if sd.takingTurns && !was {
		sd.logThrottled(sd.log, slog.LevelWarn, "the peer accepts no more connections at once: the queues that lead to it take turns", "err", err)
	}
	return sd.takingTurns
}

// attempt makes a connection and uses it until the connection ends. When an idle
// connection has ended, attempt makes another one as soon as there is something to send;
// when another connection has replaced the first, attempt continues with the
// replacement. ok reports whether one of these connections was successful, so that the
// next attempt may follow soon.
func (sd *sender) attempt(ctx, graceCtx context.Context) (ok bool, err error) {
	// The queue counts as acquired also while the sender is idle without a connection.
	release, err := sd.s.queuePacer.acquire(ctx)
	if err != nil {
		return false, err
	}
	defer release()
	var se *session
	for {
		st := sd.peer.state.Load()
		if se != nil {
			st = se.state
		}
		if st == nil {
			return ok, nil
		}
		if st.StompErr != nil {
			return ok, &peerFilesError{st.StompErr}
		}
		sd.tracker.connecting()
		next, sessionOK, err := sd.runSession(ctx, graceCtx, st, se)
		ok = ok || sessionOK
		switch {
		case next != nil, errors.Is(err, broker.ErrReopen):
		case !errors.Is(err, errIdle):
			return ok, err
		default:
			sd.tracker.set(LinkState{Verdict: VerdictResting})
			if err := sd.rest(ctx); err != nil {
				return ok, err
			}
		}
		se = next
	}
}

// Reasons why a session ends, besides errIdle, broker.ErrReopen, errYielded, errTimeSliceOver
// and *certificateExpired. Only with errConnEnded has the connection itself ended before.
var (
	errNewGeneration = errors.New("the peer's state has changed")
	errReplaced      = errors.New("there is another connection with the renewed certificate")
	errConnEnded     = errors.New("the connection has ended")
)

// runSession runs se, or a new session if se is nil, until the session ends. If another
// session has replaced it, next is the replacement.
//
// The session's context is canceled when the session has to end, with the reason as the
// cause.
func (sd *sender) runSession(ctx, graceCtx context.Context, st *peerState, se *session) (next *session, ok bool, err error) {
	ctx, end := context.WithCancelCause(ctx)
	defer end(nil)
	defer context.AfterFunc(st.generation, func() { end(errNewGeneration) })()
	defer func() {
		if reason := context.Cause(ctx); isPlannedEnd(reason) {
			ok, err = true, reason
		} else if errors.Is(reason, errNewGeneration) {
			ok, err = true, nil // the next attempt uses the new generation
		}
	}()
	if se == nil {
		if se, err = sd.open(ctx, st); err != nil {
			return nil, false, err
		}
	}
	defer se.close()
	defer sd.s.onExpiry(outgoingCertificates(se.conn.own, st.SubCA, se.conn.chain), func(e *certificateExpired) {
		sd.s.logExpired(se.log, sd.queue, e)
		end(e)
	})()
	replacement := make(chan *session, 1)
	go func() {
		next := sd.replace(ctx, se)
		replacement <- next
		if next != nil {
			end(errReplaced)
		}
	}()
	leaveTurns := sd.peer.connTurns.add(se, func() { end(errTimeSliceOver) })

	err = se.run(ctx, graceCtx, end)

	se.close()
	leaveTurns()
	if se.anyConfirmed() {
		sd.consecutiveDeadLetters, sd.unidentified = 0, unidentifiedErrors{}
	}
	end(nil)
	if next = <-replacement; next != nil {
		return next, true, nil
	}
	if serverErr := new(stomp.ServerError); errors.As(err, &serverErr) && (serverErr.MessageNumber > 0 || se.retrySoon) {
		// The pauses before a refused message is sent again grow. For the next message
		// that is refused, they start with the shortest pause again.
		return nil, se.retrySoon && sd.consecutiveDeadLetters < maxConsecutiveDeadLetters, err
	}
	return nil, se.anyConfirmed() || time.Since(se.since) > steady, err
}

// isPlannedEnd reports whether a session was ended by a yield, by the end of its time slice or by
// an expired certificate. runSession returns these as the error, with ok set; it handles
// errNewGeneration and errReplaced itself.
func isPlannedEnd(cause error) bool {
	return errors.Is(cause, errYielded) || errors.Is(cause, errTimeSliceOver) || errors.As(cause, new(*certificateExpired))
}

// open makes a connection to the peer and opens a STOMP session on it.
func (sd *sender) open(ctx context.Context, st *peerState) (*session, error) {
	if err := sd.s.cfg.Broker.CheckInUse(ctx, sd.queue); err != nil {
		return nil, &brokerError{err} // checked before a connection is made, which would be useless
	}
	sd.s.brokerProblems.set(sd.queue, nil) // connecting to the peer may take minutes
	se, reached, err := sd.dial(ctx, st)
	sd.unreachable = !reached
	if err != nil {
		sd.peer.follower.recordFailure(sd.s.cfg.Follow)
		return nil, err
	}
	return se, nil
}

// dial is like open, but neither checks whether another process uses the queue, nor
// records whether the peer was reached. reached is false only if connect has failed: no
// TLS connection to the peer could be made.
func (sd *sender) dial(ctx context.Context, st *peerState) (se *session, reached bool, err error) {
	if err := sd.s.checkClientChain(st); err != nil {
		return nil, true, err
	}
	// After a restart there are as many attempts as peers. They must not delay each
	// other, nor the handshakes of incoming connections.
	if err := sd.s.dials.Wait(ctx); err != nil {
		return nil, true, err
	}
	conn, addr, err := sd.connect(ctx, st)
	if err != nil {
		return nil, false, err
	}
	se, err = sd.newSession(ctx, st, conn, addr)
	return se, true, err
}

// replace waits until this node's server certificate is renewed, and opens another
// session with the new certificate while se is still in use: so sending is not
// interrupted, and a certificate that the peer refuses is detected before the old one
// has expired. It returns nil when ctx is done.
func (sd *sender) replace(ctx context.Context, se *session) *session {
	r := sd.s.newRetries()
	for {
		renewed := sd.s.cfg.Certificate.renewed.Next()
		if sd.s.cfg.Certificate.isCurrent(se.conn.own) {
			select {
			case <-renewed:
				continue
			case <-ctx.Done():
				return nil
			}
		}
		next, _, err := sd.dial(ctx, se.state)
		if err == nil {
			return next
		}
		if ctx.Err() != nil {
			return nil
		}
		pause := r.pause()
		if r.isNewError(err) {
			sd.logThrottled(se.log, slog.LevelWarn, "no connection with the renewed server certificate, the old connection stays", "err", err, "pause", pause.Round(time.Millisecond))
		}
		if wait.Sleep(ctx, pause) != nil {
			return nil
		}
	}
}

// logThrottled logs, at a limited rate, what a peer could cause again and again.
func (sd *sender) logThrottled(log *slog.Logger, level slog.Level, text string, args ...any) {
	sd.s.logLimiter.Log(log, level, logthrottle.Key{Who: sd.queue, Kind: text}, text, args...)
}
