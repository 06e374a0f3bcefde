package link

import (
	"context"
	"log/slog"
	"time"

	"peerlink/internal/wait"
	"peerlink/stomp"
)

// A peer may answer a message with an ERROR that does not identify the message. The
// unconfirmed messages are then sent again one at a time, the first of them after the
// connection has been quiet for a moment: so an ERROR refers to the only unconfirmed
// message, and not to the connection. It counts like an ERROR that identifies the
// message, with one difference: the peer may have a fault that is unrelated to the
// message. Then it refuses the next messages as well, and these must not all become
// dead letters.

// quietTime is how long a connection must have been quiet before the first message to
// which an ERROR may be attributed.
const quietTime = time.Second

// The pauses between two dead letters due to ERRORs that identify no message grow from
// firstUnnamedPause to lastUnnamedPause, as long as the peer confirms nothing.
const (
	firstUnnamedPause = time.Hour
	lastUnnamedPause  = 24 * time.Hour
)

// unnamedErrors decides whether an ERROR may count against a message that it does not
// identify.
type unnamedErrors struct {
	last  time.Time // when a message last became a dead letter because of them
	pause time.Duration
}

func (u *unnamedErrors) count(now time.Time) bool { return now.Sub(u.last) >= u.pause }

func (u *unnamedErrors) setAside(now time.Time) {
	u.last, u.pause = now, min(max(2*u.pause, firstUnnamedPause), lastUnnamedPause)
}

// refusedBy returns the message that an ERROR counts against. found is false if there
// is none.
func (se *session) refusedBy(refused *stomp.ServerError) (m sent, found bool) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if refused.N > 0 {
		return se.sent.get(refused.N)
	}
	switch {
	case len(se.sent.items) == 0 || isInternalError(refused):
		return sent{}, false
	case len(se.sent.items) > 1 || !se.quiet:
		se.oneAtATime = len(se.sent.items)
		se.logThrottled(se.log, slog.LevelWarn, "the peer has answered with an ERROR that names no message: those under way are sent again one at a time", "err", refused.Message, "messages", len(se.sent.items))
		return sent{}, false
	}
	se.oneAtATime = max(se.oneAtATime, 1)
	return se.sent.items[0], se.unnamed.count(time.Now())
}

// awaitQuiet waits for quietTime before the first message of a connection on which
// messages are sent one at a time.
func (se *session) awaitQuiet(ctx context.Context) error {
	if se.oneAtATime == 0 || se.quiet {
		return nil
	}
	se.quiet = true
	return wait.Sleep(ctx, quietTime)
}
