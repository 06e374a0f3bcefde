package broker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// ErrNoDeadLetter is returned for a message that is not among those set aside, or
// not any more.
var ErrNoDeadLetter = errors.New("broker: message is not set aside")

// DeadLetters is an operator's view of the messages that a [Consumer] has set aside.
// They stay until someone decides: they are sent again, or dropped. A [Broker]
// may be a Shelf too; it works whether or not the queues have consumers, in
// this process or another. All methods are safe for concurrent use.
type DeadLetters interface {
	// Info returns how many messages a queue has. It reports [ErrNoQueue].
	Info(ctx context.Context, queue string) (QueueInfo, error)
	// List goes through the messages of a queue that are set aside, those
	// that are there longest first, and changes nothing. It ends with the
	// first error. Messages set aside meanwhile may be missing.
	List(ctx context.Context, queue string) iter.Seq2[DeadLetter, error]
	// Retry puts messages that are set aside back at the end of their queue,
	// in the order in which Aside shows them, as if they were sent now. It
	// returns how many it has put back. Where some of the IDs are not there,
	// it reports [ErrNoDeadLetter] after it has put back the others. When it fails
	// in the middle, messages may be in the queue and still set aside, but
	// none is lost.
	Retry(ctx context.Context, queue string, ids []string) (int, error)
	// Drop removes messages that are set aside, for ever. It returns how many,
	// and reports [ErrNoDeadLetter] as Retry does.
	Drop(ctx context.Context, queue string, ids []string) (int, error)
}

// QueueInfo says how many messages a queue has at a moment.
type QueueInfo struct {
	Waiting     int       // to be sent
	DeadLetters int       // not to be sent until someone decides
	Oldest      time.Time // when the first of those set aside was; zero if there is none or the broker does not know
	Warning     string    // why those set aside may be lost; "" if nothing is known to be wrong
}

// DeadLetter is a message that was set aside because it can not be sent.
type DeadLetter struct {
	// ID names the message among those of its queue that are set aside. It
	// stays the same, in all processes, until the message leaves them. A
	// broker may give messages that are alike in everything the same ID; what
	// is done to one of them is done to all.
	ID     string
	At     time.Time // when it was set aside; zero if the broker does not know
	Reason string    // why; "" if the broker does not know
	Outgoing
}

// NoDeadLetterError returns nil if there are no IDs, and otherwise an [ErrNoDeadLetter] that
// names the first of them.
func NoDeadLetterError(ids []string) error {
	const named = 5
	switch n := len(ids); {
	case n == 0:
		return nil
	case n > named:
		return fmt.Errorf("%w: %q and %d others", ErrNoDeadLetter, ids[:named], n-named)
	default:
		return fmt.Errorf("%w: %q", ErrNoDeadLetter, ids)
	}
}
