package link

import (
	"context"
	"errors"
	"fmt"

	"peerlink/broker"
)

// errIdle is why a connection ends that has had nothing to send for long. It is
// made again when there is something: a node may have thousands of peers with
// which it exchanges a message now and then.
var errIdle = errors.New("nothing to send")

// next waits for messages. It returns errIdle when there were none for
// [Config.IdleTimeout], and the peer has confirmed what was sent.
func (se *session) next(ctx context.Context, consumer broker.Consumer) ([]broker.Delivery, error) {
	idle := se.s.cfg.IdleTimeout
	if idle < 0 {
		return consumer.Next(ctx, batchSize)
	}
	for {
		limited, cancel := context.WithTimeout(ctx, idle)
		batch, err := consumer.Next(limited, batchSize)
		cancel()
		switch {
		case err == nil || ctx.Err() != nil || !errors.Is(err, context.DeadlineExceeded):
			return batch, err
		case se.unconfirmed() == 0:
			return nil, errIdle
		}
	}
}

// rest waits, without a connection, until there is a message in the queue. The
// message stays there: the next connection begins with it.
func (sd *sender) rest(ctx context.Context) error {
	consumer, err := sd.s.cfg.Broker.Consume(ctx, sd.queue)
	if err != nil {
		return fmt.Errorf("queue %s: %w", sd.queue, err)
	}
	_, err = consumer.Next(ctx, 1)
	if closeErr := consumer.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("queue %s: %w", sd.queue, closeErr)
	}
	return err
}
