package broker

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
)

// ErrNoDeadLetter is returned for a message that is not, or no longer, a dead letter.
var ErrNoDeadLetter = errors.New("broker: message is not set aside")

// DeadLetters is an operator's view of the messages that a [Consumer] has moved to the
// dead letters. They stay there until the operator retries or drops them. A [Broker] may
// implement DeadLetters too. The methods work whether or not the queues have consumers, in
// this or in another process, and are safe for concurrent use.
type DeadLetters interface {
	// Info returns the numbers of messages of a queue, or [ErrNoQueue]
	// if the queue does not exist.
	Info(ctx context.Context, queue string) (QueueInfo, error)
	// List iterates over the dead letters of a queue, and changes nothing. Depending on the
	// broker, they are in the order that they had in the queue, or in which they became dead
	// letters. List ends after the first error. Dead letters that are added during the
	// iteration may be missing.
	List(ctx context.Context, queue string) iter.Seq2[DeadLetter, error]
	// Retry moves dead letters back to the end of their queue, in the order in which List
	// yields them, as if they were sent now. It returns how many it has moved. If some of
	// the IDs do not exist, Retry moves the other dead letters and returns
	// [ErrNoDeadLetter]. After a failure in the middle, messages may be both in the queue
	// and among the dead letters, but no message is lost.
	Retry(ctx context.Context, queue string, ids []string) (int, error)
	// Drop deletes dead letters. It returns how many it has deleted, and
	// [ErrNoDeadLetter] as Retry does.
	Drop(ctx context.Context, queue string, ids []string) (int, error)
}

// QueueInfo describes the state of a queue at one moment.
type QueueInfo struct {
	Waiting     int       // messages to be sent; the broker may or may not count those that are delivered and unconfirmed
	DeadLetters int       // messages that are not sent unless an operator retries them
	Oldest      time.Time // when the first of the present dead letters became one; zero if there is none or the time is unknown
	// OldestWaiting is when the first of the messages that wait has arrived; zero if there is none or the time is unknown.
	OldestWaiting time.Time
	Warning       string // which messages may be lost, and why; "" if no problem is known
}

// DeadLetter is a message that was moved out of its queue because it cannot be sent.
type DeadLetter struct {
	// ID identifies the message among the dead letters of its queue. It is the same in all
	// processes for as long as the message is a dead letter. A broker may give identical
	// messages the same ID; an operation on this ID then applies to all of them.
	ID     string
	At     time.Time // when it became a dead letter; zero if that is unknown
	Reason string    // why it cannot be sent; "" if that is unknown
	Outgoing
}

// NoDeadLetterError returns nil if ids is empty, and otherwise an [ErrNoDeadLetter] that
// names up to five of the IDs.
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
