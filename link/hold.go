package link

import (
	"context"
	"errors"

	"golang.org/x/time/rate"

	"peerlink/broker"
	"peerlink/stomp"
)

// maxReceipts is how many received messages of one connection may wait for
// their receipts. It is more than the window of any known sender; beyond it
// nothing is read until receipts have been sent.
const maxReceipts = 4096

// errPeerLeft is why a connection ends that is held up while the peer leaves.
var errPeerLeft = errors.New("the peer has left, or does not read")

// newMessageLimiter bounds messages in a second. What was not used of a second can be
// used in the next.
func newMessageLimiter(perSecond int) *rate.Limiter {
	if perSecond <= 0 {
		return rate.NewLimiter(rate.Inf, 1)
	}
	return rate.NewLimiter(rate.Limit(perSecond), perSecond)
}

// capacityContext ends when it makes no sense any more to be held up: with the
// service, or with the connection, which nobody reads meanwhile.
func (r *receiver) capacityContext(stopCtx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(stopCtx)
	go func() {
		select {
		case <-r.server.Broken():
			cancel(errPeerLeft)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// waitForCapacity waits until the next message may be read: until the peer is within its
// rate, its messages in the inbox within their quota, and there is room for a
// receipt. The peer is not told. It notices that nothing is read, and waits.
func (r *receiver) waitForCapacity(ctx context.Context) error {
	err := r.awaitReceiptSlot(ctx)
	if err == nil && !r.peer.messageLimiter.Allow() {
		err = r.peer.messageLimiter.Wait(ctx)
	}
	if q, ok := r.s.cfg.Broker.(broker.Quotas); err == nil && ok {
		err = q.AwaitQuota(ctx, r.peer.id)
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errPeerLeft):
		return errPeerLeft
	case ctx.Err() != nil:
		return stomp.ErrStopped
	default:
		return err
	}
}

// awaitReceiptSlot waits until there is room for another receipt.
func (r *receiver) awaitReceiptSlot(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.receipts) < maxReceipts {
		return nil
	}
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})()
	for len(r.receipts) >= maxReceipts && r.failed == nil && ctx.Err() == nil {
		r.changed.Wait()
	}
	return ctx.Err()
}
