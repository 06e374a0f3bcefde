package link

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"peerlink/broker"
)

// answering is a consumer that answers each call of Next.
type answering struct {
	broker.Consumer
	next func(context.Context) ([]broker.Delivery, error)
}

func (c answering) Next(ctx context.Context, _ int) ([]broker.Delivery, error) { return c.next(ctx) }

// The normal end of a wait for messages is not an error, and no other event is mistaken for
// it: messages that have arrived in time are not lost, and a failed consumer and an
// interrupted wait are reported.
func TestNextBatch(t *testing.T) {
	t.Parallel()
	failed := errors.New("failed")
	one := []broker.Delivery{{Tag: 1}}
	waits := func(ctx context.Context) ([]broker.Delivery, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	for name, tt := range map[string]struct {
		next func(context.Context) ([]broker.Delivery, error)
		stop time.Duration // until the wait is interrupted, or 0
		idle time.Duration
		want int
		err  error
	}{
		"messages":              {func(context.Context) ([]broker.Delivery, error) { return one, nil }, 0, time.Minute, 1, nil},
		"messages at the end":   {func(ctx context.Context) ([]broker.Delivery, error) { <-ctx.Done(); return one, nil }, 0, time.Minute, 1, nil},
		"none":                  {waits, 0, time.Minute, 0, nil},
		"failed":                {func(context.Context) ([]broker.Delivery, error) { return nil, failed }, 0, time.Minute, 0, failed},
		"interrupted":           {waits, time.Second, time.Minute, 0, context.Canceled},
		"interrupted, no limit": {waits, time.Hour, 0, 0, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if tt.stop > 0 {
					time.AfterFunc(tt.stop, cancel)
				}
				batch, err := nextBatch(ctx, answering{next: tt.next}, tt.idle)
				if len(batch) != tt.want || !errors.Is(err, tt.err) {
					t.Errorf("got %d messages and %v, want %d and %v", len(batch), err, tt.want, tt.err)
				}
			})
		})
	}
}

// A fault of the broker is not attributed to the peer; otherwise, the pauses before
// connections to the peer would grow. The end of the session and a request to open the
// queue again are not faults of the broker.
func TestFaultsOfTheBroker(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		err     error
		stopped bool
		want    bool
	}{
		"fault":          {errors.New("failed"), false, true},
		"reopen":         {broker.ErrReopen, false, false},
		"end of session": {context.Canceled, true, false},
	} {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		if tt.stopped {
			cancel()
		}
		se := &session{sender: &sender{s: newShared(Config{})}}
		_, err := se.next(ctx, answering{next: func(context.Context) ([]broker.Delivery, error) { return nil, tt.err }})
		if !errors.Is(err, tt.err) || errors.As(err, new(*brokerError)) != tt.want {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
