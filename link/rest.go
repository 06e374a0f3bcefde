package link

import (
	"cmp"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"peerlink/stomp"
)

// errCheckDue means that a resting link has to be checked.
var errCheckDue = errors.New("the link has to be checked")

// minCheckPause is the shortest time between two checks of a resting link: a peer could cause
// them, by connections that it does not end in good order.
const minCheckPause = time.Minute

// rest waits, without a connection, until there is a message in the queue. It checks every
// [Config.CheckInterval], and when the peer seems to have crashed, whether the peer can still be
// connected to, and returns the error if not: then the sender tries again until it can.
func (sd *sender) rest(ctx context.Context) error {
	sd.restedAt = time.Now()
	for {
		err := sd.awaitMessage(ctx)
		if !errors.Is(err, errCheckDue) {
			if err != nil {
				err = &brokerError{err}
			}
			return err
		}
		if err := sd.checkResting(ctx); err != nil {
			return err
		}
		sd.restedAt = time.Now()
	}
}

// scheduleCheck calls due, on another goroutine, when a resting link has to be checked, unless
// cancel is called before.
func (sd *sender) scheduleCheck(ctx context.Context, due func()) (cancel func()) {
	interval := sd.s.cfg.CheckInterval
	if interval <= 0 {
		return func() {}
	}
	ctx, cancel = context.WithCancel(ctx)
	crashed, earliest := sd.peer.checkNow.Next(), sd.restedAt.Add(min(minCheckPause, interval/2))
	go func() {
		// The time is random, so that the checks of many peers are spread.
		timer := time.NewTimer(interval/2 + rand.N(interval/2+1))
		defer timer.Stop()
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-crashed:
			select {
			case <-ctx.Done():
				return
			case <-time.After(time.Until(earliest)):
			}
		}
		due()
	}()
	return cancel
}

// checkResting makes a connection to the peer, on which nothing is sent, and ends it.
func (sd *sender) checkResting(ctx context.Context) error {
	st := sd.peer.state.Load()
	if st == nil {
		return nil // the sender is about to end
	}
	if st.StompErr != nil {
		return &peerFilesError{st.StompErr}
	}
	se, err := sd.open(ctx, st)
	if err != nil {
		return err
	}
	defer se.close()
	if err := awaitRefusal(ctx, se.client); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, sd.s.cfg.DrainTimeout)
	defer cancel()
	if err := se.client.Disconnect(ctx); err != nil {
		return err
	}
	sd.tracker.markWorked(time.Now())
	sd.tracker.set(LinkState{Verdict: VerdictResting})
	return nil
}

// awaitRefusal waits whether the peer refuses a session after all, and returns its error: servers of
// the reference implementation accept every session, and look only then who has opened it.
func awaitRefusal(ctx context.Context, client *stomp.Client) error {
	select {
	case <-client.Done():
		return cmp.Or(client.Err(), errClosedByPeer)
	case <-time.After(quietTime):
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}
