package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
	"peerlink/smp"
)

// drainer answers, in the name of a deactivated peer, what is still in one of
// its queues, so that the node's applications can let go of what they hold for
// the peer (section "Draining a deactivated peer"). An answer comes to them as
// any message from the peer, and what it answers leaves the queue when the
// answer is durable. Messages to which there is no answer are dropped. Those
// that could not have been sent are set aside, as they would be for any peer:
// they show that something is wrong, and would vanish unseen.
type drainer struct {
	s     *Service
	queue string
	view  smp.View
	log   *slog.Logger

	// What was done since the queue was last empty.
	answered, dropped, aside int
}

// startDrainers starts a drainer for each queue. There must be none.
func (s *Service) startDrainers(ctx, connCtx context.Context, p *peer, view smp.View, queues []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range queues {
		drainCtx, stop := context.WithCancel(ctx)
		p.drainers[queue] = stop
		d := s.newDrainer(p.id, queue, view)
		s.wg.Go(func() { d.run(drainCtx, connCtx) })
	}
}

func (s *Service) newDrainer(peerID, queue string, view smp.View) *drainer {
	return &drainer{s: s, queue: queue, view: view, log: s.log.With("peer", peerID, "queue", queue)}
}

// run drains the queue until ctx is done. When it has been empty for a while,
// it is looked at now and then only: in a cluster a late message may still
// arrive. connCtx is done when everything must end at once.
func (d *drainer) run(ctx, connCtx context.Context) {
	bo := newBackOff(&d.s.cfg)
	lastErr := ""
	defer d.report("draining ends")
	for ctx.Err() == nil {
		err := d.drain(ctx, connCtx, d.s.cfg.DrainedAfter)
		if errors.Is(err, broker.ErrReopen) {
			continue
		}
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			return
		case err == nil || errors.Is(err, broker.ErrNoQueue): // someone may have deleted it
			d.report("drained the queue of a deactivated peer")
			bo.Reset()
			lastErr = ""
			pause = d.s.cfg.DrainPause/2 + rand.N(d.s.cfg.DrainPause)
		case errors.Is(err, broker.ErrInUse):
			pause = d.s.standbyPause()
		default:
			pause = bo.NextBackOff()
			if err.Error() != lastErr {
				lastErr = err.Error()
				d.log.Warn("the queue of a deactivated peer can not be drained, trying again", "err", err, "pause", pause.Round(time.Millisecond))
			}
		}
		_ = wait.Sleep(ctx, pause)
	}
}

// drain answers what is in the queue until that has been empty for idle (0: for
// ever), or ctx is done.
func (d *drainer) drain(ctx, connCtx context.Context, idle time.Duration) error {
	if err := d.s.cfg.Broker.CheckInUse(ctx, d.queue); err != nil {
		return err
	}
	consumer, err := d.s.cfg.Broker.Consume(ctx, d.queue)
	if err != nil {
		return err
	}
	defer consumer.Close()
	var answers *answers // from the first message on
	for {
		batch, err := nextBatch(ctx, consumer, idle)
		if err != nil || batch == nil {
			return err
		}
		if answers == nil {
			if answers, err = openAnswers(connCtx, d.s.cfg.Broker); err != nil {
				return err
			}
			defer answers.publisher.Close()
		}
		if err := d.work(connCtx, consumer, answers, batch); err != nil {
			return err
		}
	}
}

// move deals with some messages, and removes them when their answers are durable.
func (d *drainer) work(ctx context.Context, consumer broker.Consumer, answers *answers, batch []broker.Delivery) error {
	if d.answered+d.dropped+d.aside == 0 {
		d.log.Info("draining the queue of a deactivated peer")
	}
	inbox := d.s.cfg.Dir.Identity().Type.Inbox()
	answered, dropped := 0, 0
	for _, m := range batch {
		answer, err := answerTo(d.view, &m.Outgoing, d.s.cfg.Now())
		switch {
		case errors.Is(err, smp.ErrView):
			return err // not the message's fault
		case err != nil:
			if err := consumer.DeadLetter(ctx, m.Tag, "for a deactivated peer: "+err.Error()); err != nil {
				return err
			}
			if d.aside++; d.aside == 1 {
				d.log.Error("message for a deactivated peer set aside, the first of those that are counted when the queue is drained", "type", m.Type, "err", err)
			}
		case answer == nil:
			dropped++
		default:
			if err := answers.publish(ctx, incoming(inbox, answer)); err != nil {
				return err
			}
			answered++
		}
	}
	if err := answers.flush(ctx); err != nil {
		return err
	}
	if err := consumer.Confirm(batch[len(batch)-1].Tag); err != nil {
		return err
	}
	d.answered += answered
	d.dropped += dropped
	return nil
}

// report says what was done since the last report.
func (d *drainer) report(msg string) {
	if d.answered+d.dropped+d.aside > 0 {
		d.log.Info(msg, "answered", d.answered, "dropped", d.dropped, "set_aside", d.aside)
	}
	d.answered, d.dropped, d.aside = 0, 0, 0
}

// answerTo makes what the node's application gets instead of the peer's answer
// to a message, nil for none.
func answerTo(v smp.View, m *broker.Outgoing, now time.Time) (*smp.Received, error) {
	body, err := v.Outgoing(m.Type, m.ContentType, m.Body)
	if err != nil {
		return nil, err
	}
	typ, body, err := smp.Answer(m.Type, body, now)
	if err != nil || typ == "" {
		return nil, err
	}
	r, err := v.Incoming(typ, smp.ContentType, body, now)
	if err != nil {
		return nil, fmt.Errorf("its answer: %w", err)
	}
	return &r, nil
}

// answers is a stream of answers into the node's inbox.
type answers struct {
	publisher broker.Publisher
	given     uint64

	mu     sync.Mutex
	stored uint64
	failed error
	news   chan struct{} // has an element when one of these has changed
}

func openAnswers(ctx context.Context, b broker.Broker) (*answers, error) {
	a := &answers{news: make(chan struct{}, 1)}
	var err error
	if a.publisher, err = b.Publish(ctx, a.onStored); err != nil {
		return nil, err
	}
	return a, nil
}

func (a *answers) onStored(n uint64, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.stored = max(a.stored, n)
	if a.failed == nil {
		a.failed = err
	}
	select {
	case a.news <- struct{}{}:
	default:
	}
}

func (a *answers) publish(ctx context.Context, m *broker.Incoming) error {
	if err := a.publisher.Publish(ctx, m); err != nil {
		return err
	}
	a.given++
	return nil
}

// flush waits until all answers are durable.
func (a *answers) flush(ctx context.Context) error {
	for {
		a.mu.Lock()
		stored, err := a.stored, a.failed
		a.mu.Unlock()
		if stored == a.given {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-a.news:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stopDrainers ends the draining of the peer's queues.
func (p *peer) stopDrainers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stop := range p.drainers {
		stop()
	}
	clear(p.drainers)
}
