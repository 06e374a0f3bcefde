package link

import (
	"context"
	"errors"
	"fmt"
	"time"

	"peerlink/broker"
)

// errIdle is why a connection ends that has had nothing to send for long. It is
// made again when there is something: a node may have thousands of peers with
// which it exchanges a message now and then.
var errIdle = errors.New("nothing to send")

// next waits for messages. It returns errIdle when there were none for
// [Config.IdleTimeout], and the peer has confirmed what was sent.
func (se *session) next(ctx context.Context, consumer broker.Consumer) ([]broker.Delivery, error) {
	for {
		batch, err := nextBatch(ctx, consumer, max(0, se.s.cfg.IdleTimeout))
		if batch != nil || err != nil {
			return batch, err
		}
		if se.unconfirmed() == 0 {
			return nil, errIdle
		}
	}
}

// nextBatch waits for messages, for up to idle (0: for ever). It returns none,
// and no error, if none have come.
func nextBatch(ctx context.Context, consumer broker.Consumer, idle time.Duration) ([]broker.Delivery, error) {
	if idle == 0 {
		return consumer.Next(ctx, batchSize)
	}
	limited, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	batch, err := consumer.Next(limited, batchSize)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, nil // should the consumer have failed just now, it will say so again
	}
	return batch, err
}

// awaitMessage waits, without a connection, until there is a message in the queue. The
// message stays there: the next connection begins with it.
func (sd *sender) awaitMessage(ctx context.Context) error {
	consumer, err := sd.s.cfg.Broker.Consume(ctx, sd.queue)
	if err != nil {
		return fmt.Errorf("queue %s: %w", sd.queue, err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer sd.serveRequests(consumer, func() { stop(errYielded) })()
	_, err = consumer.Next(ctx, 1)
	if errors.Is(context.Cause(ctx), errYielded) {
		err = errYielded
	}
	if closeErr := consumer.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("queue %s: %w", sd.queue, closeErr)
	}
	return err
}
