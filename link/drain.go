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

// drainer answers, on behalf of a deactivated peer, the messages that are still in one
// of its queues, so that the node's applications can release what they hold for the
// peer (section "Draining a deactivated peer" of the messages specification). The answer
// is delivered like any message from the peer, and the answered message is removed from
// the queue when the answer is durable. Messages that need no answer are dropped.
// Messages that could not have been sent become dead letters, as for any peer: they
// indicate a fault that would go unnoticed otherwise.
type drainer struct {
	s     *shared
	queue string
	view  smp.View
	log   *slog.Logger

	// Counts of messages since the last report.
	answered, dropped, setAside int
}

// startDrainers starts a drainer for each queue. No drainer may be running.
func (r *reconciler) startDrainers(ctx, graceCtx context.Context, p *peer, view smp.View, queues []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range queues {
		drainCtx, stop := context.WithCancel(ctx)
		p.drainers[queue] = stop
		d := r.newDrainer(p.id, queue, view)
		r.wg.Go(func() { d.run(drainCtx, graceCtx) })
	}
}

func (s *shared) newDrainer(peerID, queue string, view smp.View) *drainer {
	return &drainer{s: s, queue: queue, view: view, log: s.log.With("peer", peerID, "queue", queue)}
}

// run drains the queue until ctx is done. When the queue has been empty for
// [Config.DrainedAfter], run closes it and checks it only every [Config.DrainPause]: in a
// cluster a late message may still arrive. All work is aborted when graceCtx is done.
func (d *drainer) run(ctx, graceCtx context.Context) {
	r := d.s.newRetries()
	defer d.report("draining ends")
	for ctx.Err() == nil {
		err := d.drain(ctx, graceCtx, d.s.cfg.DrainedAfter)
		if errors.Is(err, broker.ErrReopen) {
			continue
		}
		var pause time.Duration
		switch {
		case ctx.Err() != nil:
			return
		case err == nil || errors.Is(err, broker.ErrNoQueue): // the operator may have deleted the queue
			d.report("drained the queue of a deactivated peer")
			r.succeeded()
			pause = d.s.cfg.DrainPause/2 + rand.N(d.s.cfg.DrainPause)
		case errors.Is(err, broker.ErrInUse):
			pause = d.s.standbyPause()
		default:
			pause = r.pause()
			if r.isNewError(err) {
				d.log.Warn("the queue of a deactivated peer can not be drained, trying again", "err", err, "pause", pause.Round(time.Millisecond))
			}
		}
		_ = wait.Sleep(ctx, pause)
	}
}

// drain answers the messages in the queue. It returns nil when the queue has been empty for
// idle (0: never), and an error when ctx is done or the broker fails.
func (d *drainer) drain(ctx, graceCtx context.Context, idle time.Duration) error {
	if err := d.s.cfg.Broker.CheckInUse(ctx, d.queue); err != nil {
		return err
	}
	consumer, err := d.s.cfg.Broker.Consume(ctx, d.queue)
	if err != nil {
		return err
	}
	defer consumer.Close()
	var answers *answers // opened with the first message
	for {
		batch, err := nextBatch(ctx, consumer, idle)
		if err != nil || batch == nil {
			return err
		}
		if answers == nil {
			if answers, err = openAnswers(graceCtx, d.s.cfg.Broker); err != nil {
				return err
			}
			defer answers.publisher.Close()
		}
		if err := d.answerBatch(graceCtx, consumer, answers, batch); err != nil {
			return err
		}
	}
}

// answerBatch answers a batch of messages, and confirms the batch when the answers are
// durable.
func (d *drainer) answerBatch(ctx context.Context, consumer broker.Consumer, answers *answers, batch []broker.Delivery) error {
	if d.answered+d.dropped+d.setAside == 0 {
		d.log.Info("draining the queue of a deactivated peer")
	}
	inbox := d.s.cfg.Dir.Identity().Type.Inbox()
	answered, dropped := 0, 0
	for _, m := range batch {
		answer, err := answerTo(d.view, &m.Outgoing, d.s.cfg.Now())
		switch {
		case errors.Is(err, smp.ErrView):
			return err // the view is at fault, not the message
		case err != nil:
			if err := consumer.DeadLetter(ctx, m.Tag, "for a deactivated peer: "+err.Error()); err != nil {
				return err
			}
			if d.setAside++; d.setAside == 1 {
				d.log.Error("message for a deactivated peer set aside; further ones are only counted until the queue is drained", "type", m.Type, "err", err)
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

// report logs the counts since the last report, and resets them.
func (d *drainer) report(msg string) {
	if d.answered+d.dropped+d.setAside > 0 {
		d.log.Info(msg, "answered", d.answered, "dropped", d.dropped, "set_aside", d.setAside)
	}
	d.answered, d.dropped, d.setAside = 0, 0, 0
}

// answerTo returns the message that the node's application gets instead of the peer's
// answer, or nil if no answer is needed.
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
		return nil, fmt.Errorf("answer to the message: %w", err)
	}
	return &r, nil
}

// answers publishes answers to the node's inbox, and counts those that are durable.
type answers struct {
	publisher broker.Publisher
	published uint64

	mu      sync.Mutex
	stored  uint64
	failed  error
	changed wait.Signal // notified when stored or failed has changed
}

func openAnswers(ctx context.Context, b broker.Broker) (*answers, error) {
	a := &answers{changed: wait.NewSignal()}
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
	a.changed.Notify()
}

func (a *answers) publish(ctx context.Context, m *broker.Incoming) error {
	if err := a.publisher.Publish(ctx, m); err != nil {
		return err
	}
	a.published++
	return nil
}

// flush waits until all answers are durable.
func (a *answers) flush(ctx context.Context) error {
	for {
		a.mu.Lock()
		stored, err := a.stored, a.failed
		a.mu.Unlock()
		if stored == a.published {
			return nil
		}
		if err != nil {
			return err
		}
		select {
		case <-a.changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stopDrainers stops the drainers of the peer's queues.
func (p *peer) stopDrainers() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, stop := range p.drainers {
		stop()
	}
	clear(p.drainers)
}
