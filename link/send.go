package link

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v5"

	"peerlink/broker"
	"peerlink/internal/repeats"
	"peerlink/stomp"
)

// sender carries the messages of one queue to one peer, over one connection at
// a time, for as long as the peer is a peer.
type sender struct {
	s         *Service
	peer      *peer
	queue     string
	log       *slog.Logger
	refused   *refusals
	standby   bool      // another process sends from the queue, and the log says so
	asked     time.Time // when that was asked to leave the queue
	leftAt    time.Time // when the queue was left to another process, until that has taken it
	keepUntil time.Time // the queue is not left before
	crowded   bool      // the peer has refused the last connection for having too many, and the log says so
	away      bool      // the peer could not be reached at the last attempt
	barren    int       // messages set aside for being refused, since the peer last confirmed one
	careful   int       // messages to be sent one at a time, to find the one that the peer refuses
	unnamed   unnamedRefusals
}

// startSenders starts a sender for each queue that has none. The number of a
// peer's queues only grows; a queue that is not used any more is still emptied.
func (s *Service) startSenders(ctx, connCtx context.Context, p *peer, queues []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range queues {
		if p.senders[queue] != nil {
			continue
		}
		sendCtx, stop := context.WithCancel(ctx)
		p.senders[queue] = stop
		sd := s.newSender(p, queue)
		s.wg.Go(func() { sd.run(sendCtx, connCtx) })
	}
}

func (s *Service) newSender(p *peer, queue string) *sender {
	return &sender{s: s, peer: p, queue: queue, log: s.log.With("peer", p.id, "queue", queue), refused: newRefusals()}
}

const (
	// batchSize is how many messages are taken out of a queue at once.
	batchSize = 256
	// steady is how long a connection must have lasted to count as a success
	// even if nothing was sent on it.
	steady = 30 * time.Second
	// maxBarren is how many messages one after the other may be refused and set
	// aside quickly. A peer that refuses more of them had better be given time.
	maxBarren = 10
)

// run keeps a connection to the peer until ctx is done. connCtx is done when
// everything must end at once.
func (sd *sender) run(ctx, connCtx context.Context) {
	bo := newBackOff(&sd.s.cfg)
	lastErr := ""
	defer sd.s.claims.join()()
	for ctx.Err() == nil {
		changed, called, renewed := sd.peer.change(), sd.peer.called(), sd.s.cfg.Certificate.renewal()
		ok, err := sd.attempt(ctx, connCtx)
		if ctx.Err() != nil {
			return
		}
		if ok {
			bo.Reset()
			lastErr = ""
		}
		if !sd.away {
			called = nil
		}
		var turn <-chan struct{} // nil unless it is awaited
		pause := bo.NextBackOff()
		switch {
		case errors.Is(err, errShared):
			bo.Reset()
			lastErr = ""
			sd.leftAt = time.Now()
			pause = 2 * sd.s.cfg.ClaimPause
			changed, called, renewed = nil, nil, nil // what has changed since the queue was taken is no reason to take it again
		case sd.standsBy(err):
			bo.Reset()
			lastErr = ""
			pause = sd.standbyPause(ctx)
		case ok && errors.As(err, new(*certificateEnded)): // it was told
		case sd.awaitsTurn(err):
			bo.Reset()
			lastErr = ""
			pause = sd.s.turnPause()
			turn = sd.peer.turns.waiting
		case err != nil:
			sd.peer.tally.failed(err)
			if err.Error() != lastErr { // told when it changes, not at each attempt
				lastErr = err.Error()
				sd.tell(sd.log, slog.LevelWarn, "no connection to the peer, trying again", "err", err, "pause", pause.Round(time.Millisecond))
			}
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		case <-turn:
		case <-called: // it is there again
			bo.Reset()
		case <-changed: // it may have moved
			bo.Reset()
		case <-renewed: // it may have been refused for the old certificate
			bo.Reset()
		}
	}
}

// standsBy tells whether err means that another process sends from the queue.
// That is told once.
func (sd *sender) standsBy(err error) bool {
	was := sd.standby
	sd.standby = errors.Is(err, broker.ErrInUse)
	if sd.standby && !was {
		sd.log.Info("another process sends from this queue, standing by")
	}
	return sd.standby
}

// standbyPause asks for the queue now and then, and returns the time until the next look
// at it, which comes soon after that.
func (sd *sender) standbyPause(ctx context.Context) time.Duration {
	const often = 8
	sd.leftAt = time.Time{}
	pause := sd.s.claimPause()
	if time.Since(sd.asked) < sd.s.cfg.ClaimPause {
		return pause / often
	}
	if sd.askForQueue(ctx) {
		sd.asked = time.Now()
		return pause / often
	}
	return pause
}

// awaitsTurn reports whether err means that the peer takes no more connections at
// once than this process has. That is logged once.
func (sd *sender) awaitsTurn(err error) bool {
	if errors.Is(err, errTurnOver) {
		return true
	}
	was := sd.crowded
	sd.crowded = crowdedOut(err) && sd.peer.turns.ask(sd.s.cfg.ConnTurn)
	if sd.crowded && !was {
		sd.log.Warn("the peer takes no more connections at once: its queues take turns", "err", err)
	}
	return sd.crowded
}

// newBackOff gives the pauses between attempts: with full jitter, from the first
// on, so that those who have lost a peer together do not come back together.
func newBackOff(cfg *Config) *backoff.ExponentialBackOff {
	bo := backoff.NewExponentialBackOff()
	bo.InitialInterval, bo.MaxInterval = cfg.RetryMin, cfg.RetryMax
	bo.RandomizationFactor = 1
	return bo
}

// attempt makes a connection and uses it until it ends. When it rests, another
// one follows as soon as there is something to send; when it has been replaced,
// the other one follows at once. ok reports that they were of use, so that the
// next attempt may follow soon.
func (sd *sender) attempt(ctx, connCtx context.Context) (ok bool, err error) {
	// The claim is for the queue: a connection that rests does not give it up.
	giveBack, err := sd.s.claims.take(ctx)
	if err != nil {
		return false, err
	}
	defer giveBack()
	var next *session
	for {
		var good bool
		next, good, err = sd.once(ctx, connCtx, next)
		ok = ok || good
		switch {
		case next != nil, errors.Is(err, broker.ErrReopen):
		case !errors.Is(err, errIdle):
			return ok, err
		default:
			if err := sd.rest(ctx); err != nil {
				return ok, err
			}
		}
	}
}

// once uses one connection until it ends, on the terms with which it began: the
// one given, or else it makes one. It returns the one that is to be used next, if
// that has been made already.
func (sd *sender) once(ctx, connCtx context.Context, se *session) (next *session, ok bool, err error) {
	st := sd.peer.state.Load()
	if se != nil {
		st = se.state
		defer se.close()
	}
	if st == nil {
		return nil, false, nil
	}
	if st.StompErr != nil {
		return nil, false, st.StompErr
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer context.AfterFunc(st.terms, func() { stop(nil) })()
	defer func() {
		ended := new(certificateEnded)
		switch {
		case st.terms.Err() != nil:
			ok, err = true, nil // the next attempt is on new terms
		case errors.As(context.Cause(ctx), &ended):
			ok, err = true, ended // the next attempt is with other certificates, if there are any
		case errors.Is(context.Cause(ctx), errTurnOver):
			ok, err = true, errTurnOver
		case errors.Is(context.Cause(ctx), errShared):
			ok, err = true, errShared
		}
	}()
	if se == nil {
		if se, err = sd.open(ctx, st); err != nil {
			return nil, false, err
		}
		defer se.close()
	}
	defer sd.s.whenEnded(dialedWith(se.conn.own, st.SubCA, se.conn.chain), func(e *certificateEnded) {
		sd.s.tellEnded(se.log, sd.queue, e)
		stop(e)
	})()
	successor := make(chan *session, 1)
	go func() {
		next := sd.replace(ctx, se)
		successor <- next
		if next != nil {
			stop(errReplaced)
		}
	}()

	release := sd.peer.turns.begin(se, func() { stop(errTurnOver) })
	err = se.run(ctx, connCtx, func() { stop(errShared) })
	se.close()
	release()
	if se.confirmed() {
		sd.barren, sd.unnamed = 0, unnamedRefusals{}
	}
	stop(nil)
	if next = <-successor; next != nil {
		return next, true, nil
	}
	if refused := new(stomp.ServerError); errors.As(err, &refused) && (refused.N > 0 || se.news) {
		// The pauses between offers of a refused message grow. With the next
		// message they begin anew.
		return nil, se.news && sd.barren < maxBarren, err
	}
	return nil, se.confirmed() || time.Since(se.since) > steady, err
}

// open makes a connection to the peer and opens a STOMP session on it.
func (sd *sender) open(ctx context.Context, st *peerState) (*session, error) {
	if err := sd.s.cfg.Broker.Free(ctx, sd.queue); err != nil {
		return nil, err // before the peer is bothered
	}
	se, reached, err := sd.dial(ctx, st)
	sd.away = !reached
	if err != nil {
		sd.peer.follower.failed(sd.s.cfg.Follow)
		return nil, err
	}
	return se, nil
}

// dial is open without what only the first connection needs. It reports whether
// the peer was reached.
func (sd *sender) dial(ctx context.Context, st *peerState) (se *session, reached bool, err error) {
	if err := sd.s.canDial(st); err != nil {
		return nil, true, err
	}
	// After a restart there are as many attempts as peers. They must not take the
	// time from each other, nor from those who dial us.
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

// errReplaced is why a connection ends when another one has been made for it.
var errReplaced = errors.New("there is another connection with the renewed certificate")

// replace makes another connection when this node's server certificate has been
// renewed, while the first is still in use: so nothing stands still, and a
// certificate that the peer does not take is noticed before the old one has ended.
// It returns nil when ctx is done.
func (sd *sender) replace(ctx context.Context, se *session) *session {
	bo := newBackOff(&sd.s.cfg)
	lastErr := ""
	for {
		renewed := sd.s.cfg.Certificate.renewal()
		if sd.s.cfg.Certificate.inUse(se.conn.own) {
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
		pause := bo.NextBackOff()
		if err.Error() != lastErr {
			lastErr = err.Error()
			sd.tell(se.log, slog.LevelWarn, "no connection with the renewed server certificate, the old connection stays", "err", err, "pause", pause.Round(time.Millisecond))
		}
		if wait(ctx, pause) != nil {
			return nil
		}
	}
}

// tell writes what the peer has a part in, and could make happen again and again.
func (sd *sender) tell(log *slog.Logger, level slog.Level, text string, args ...any) {
	sd.s.repeats.Tell(log, level, repeats.Deed{Who: sd.queue, Kind: text}, text, args...)
}
