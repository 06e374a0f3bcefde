package link

import (
	"time"

	"github.com/cenkalti/backoff/v5"
)

// retries are consecutive attempts that have failed, with growing pauses between them.
type retries struct {
	backOff *backoff.ExponentialBackOff
	lastErr string // an error is logged when it changes, not at each attempt
}

// newRetries returns retries whose mean pause is first at first, and grows to longest. The
// pauses have full jitter, from the first one on, so that senders that have lost a peer at
// the same time do not reconnect at the same time.
func newRetries(first, longest time.Duration) *retries {
	bo := backoff.NewExponentialBackOff()
	bo.InitialInterval, bo.MaxInterval = first, longest
	bo.RandomizationFactor = 1
	return &retries{backOff: bo}
}

// pause returns the pause before the next attempt.
func (r *retries) pause() time.Duration { return r.backOff.NextBackOff() }

// reset makes the next pause a first one.
func (r *retries) reset() { r.backOff.Reset() }

// succeeded is called when there is no reason for growing pauses, nor for silence about the
// next error.
func (r *retries) succeeded() {
	r.reset()
	r.lastErr = ""
}

// isNew reports whether an error differs from the last one.
func (r *retries) isNew(err error) bool {
	last := r.lastErr
	r.lastErr = err.Error()
	return r.lastErr != last
}
