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

// newRetries returns retries whose mean pause is initially first, and grows to longest. The
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

// reset makes the next pause as short as the first one.
func (r *retries) reset() { r.backOff.Reset() }

// succeeded records a success: the next pause is as short as the first one, and the next
// error is new even if it is the same as before.
func (r *retries) succeeded() {
	r.reset()
	r.lastErr = ""
}

// isNewError records an error, and reports whether it differs from the one recorded
// before.
func (r *retries) isNewError(err error) bool {
	last := r.lastErr
	r.lastErr = err.Error()
	return r.lastErr != last
}
