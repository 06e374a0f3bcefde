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
	s       *Service
	peer    *peer
	queue   string
	log     *slog.Logger
	refused *refusals
	standby bool // another process sends from the queue, and the log says so
	away    bool // the peer could not be reached at the last attempt
	barren  int  // messages set aside for being refused, since the peer last confirmed one
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
		changed, called := sd.peer.change(), sd.peer.called()
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
		pause := bo.NextBackOff()
		switch {
		case sd.standsBy(err):
			bo.Reset()
			lastErr = ""
			pause = sd.s.claimPause()
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
		case <-called: // it is there again
			bo.Reset()
		case <-changed: // it may have moved
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

// newBackOff gives the pauses between attempts: with full jitter, from the first
// on, so that those who have lost a peer together do not come back together.
func newBackOff(cfg *Config) *backoff.ExponentialBackOff {
	bo := backoff.NewExponentialBackOff()
	bo.InitialInterval, bo.MaxInterval = cfg.RetryMin, cfg.RetryMax
	bo.RandomizationFactor = 1
	return bo
}

// attempt makes a connection and uses it until it ends. When it rests, another
// one follows as soon as there is something to send. ok tells that they were of
// use, so that the next attempt may follow soon.
func (sd *sender) attempt(ctx, connCtx context.Context) (ok bool, err error) {
	// The claim is for the queue: a connection that rests does not give it up.
	giveBack, err := sd.s.claims.take(ctx)
	if err != nil {
		return false, err
	}
	defer giveBack()
	for {
		good, err := sd.once(ctx, connCtx)
		ok = ok || good
		if !errors.Is(err, errIdle) {
			return ok, err
		}
		if err := sd.rest(ctx); err != nil {
			return ok, err
		}
	}
}

// once makes one connection and uses it until it ends, on the terms with
// which it began.
func (sd *sender) once(ctx, connCtx context.Context) (ok bool, err error) {
	st := sd.peer.state.Load()
	if st == nil {
		return false, nil
	}
	if st.StompErr != nil {
		return false, st.StompErr
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(st.terms, stop)()
	defer func() {
		if st.terms.Err() != nil {
			ok, err = true, nil // the next attempt is on new terms
		}
	}()
	if err := sd.s.cfg.Broker.Free(ctx, sd.queue); err != nil {
		return false, err // before the peer is bothered
	}
	// After a restart there are as many attempts as peers. They must not take the
	// time from each other, nor from those who dial us.
	if err := sd.s.dials.Wait(ctx); err != nil {
		return false, err
	}
	conn, chain, addr, err := sd.connect(ctx, st)
	sd.away = err != nil
	if err != nil {
		sd.peer.follower.failed(sd.s.cfg.Follow)
		return false, err
	}
	// Nothing survives the end of connCtx, which is not long after that of ctx.
	connCtx, cut := sd.s.outlast(ctx, connCtx)
	defer cut()
	defer context.AfterFunc(connCtx, func() { cutOff(conn) })()
	defer conn.Close()
	start := time.Now()
	se := &session{sender: sd, state: st, server: addr, log: sd.log.With("server", addr)}
	err = se.run(ctx, connCtx, conn, chain)
	if se.confirmed() {
		sd.barren = 0
	}
	if refused := new(stomp.ServerError); errors.As(err, &refused) && refused.N > 0 {
		// The pauses between offers of a refused message grow. With the next
		// message they begin anew.
		return se.news && sd.barren < maxBarren, err
	}
	return se.confirmed() || time.Since(start) > steady, err
}

// tell writes what the peer has a part in, and could make happen again and again.
func (sd *sender) tell(log *slog.Logger, level slog.Level, text string, args ...any) {
	sd.s.repeats.Tell(log, level, repeats.Deed{Who: sd.queue, Kind: text}, text, args...)
}
