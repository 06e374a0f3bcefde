package link

import (
	"context"
	"log/slog"
	"strings"
	"time"

	"peerlink/internal/wait"
	"peerlink/stomp"
)

// A peer may answer a message with an ERROR that does not say which message is
// meant. The messages that were under way are then sent again one at a time, the
// first of them after the connection has been quiet for a moment: so an ERROR is
// about the one that is alone on its way, and not about the connection. That counts
// like a refusal by name, with one difference: the peer may be in trouble that has
// nothing to do with the message. Then it answers the next ones in the same way, and
// they must not all be set aside.

// quietTime is how long a connection must have been quiet before a message is sent
// that may be blamed for an ERROR.
const quietTime = time.Second

// The pauses between two messages set aside for refusals without a name grow from
// firstUnnamedPause to lastUnnamedPause, as long as the peer confirms nothing.
const (
	firstUnnamedPause = time.Hour
	lastUnnamedPause  = 24 * time.Hour
)

// unnamedErrors decides whether an ERROR may count against a message that it does
// not name.
type unnamedErrors struct {
	last  time.Time // when a message was last set aside for them
	pause time.Duration
}

func (u *unnamedErrors) count(now time.Time) bool { return now.Sub(u.last) >= u.pause }

func (u *unnamedErrors) setAside(now time.Time) {
	u.last, u.pause = now, min(max(2*u.pause, firstUnnamedPause), lastUnnamedPause)
}

// refusedBy returns the message that an ERROR counts against, if there is one.
func (se *session) refusedBy(refused *stomp.ServerError) (m sent, found bool) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if refused.N > 0 {
		if refused.N < se.first || refused.N >= se.first+uint64(len(se.sent)) {
			return sent{}, false
		}
		return se.sent[refused.N-se.first], true
	}
	switch {
	case len(se.sent) == 0 || isInternalError(refused):
		return sent{}, false
	case len(se.sent) > 1 || !se.quiet:
		se.oneAtATime = len(se.sent)
		se.logThrottled(se.log, slog.LevelWarn, "the peer has answered with an ERROR that names no message: those under way are sent again one at a time", "err", refused.Message, "messages", len(se.sent))
		return sent{}, false
	}
	se.oneAtATime = max(se.oneAtATime, 1)
	return se.sent[0], se.unnamed.count(time.Now())
}

// awaitQuiet waits before the first message of a connection that is used with care.
func (se *session) awaitQuiet(ctx context.Context) error {
	if se.oneAtATime == 0 || se.quiet {
		return nil
	}
	se.quiet = true
	return wait.Sleep(ctx, quietTime)
}

// isInternalError reports whether a peer says that the trouble is its own. There is no
// code for that, but our own nodes and the reference implementation say it in these
// words.
func isInternalError(refused *stomp.ServerError) bool {
	return strings.Contains(strings.ToLower(refused.Message), "internal server error")
}
