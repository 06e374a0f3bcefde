package cli

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"
	"unicode/utf8"

	"peerlink/broker"
)

// deadLetter is a dead letter, with the queue in which it was.
type deadLetter struct {
	queue string
	broker.DeadLetter
}

// deadLetters iterates over the dead letters of queues. It skips queues that do not exist; if none
// of them exists, it yields an error.
func (k *queueAdmin) deadLetters(ctx context.Context, queues []peerQueue) iter.Seq2[deadLetter, error] {
	return func(yield func(deadLetter, error) bool) {
		missing := 0
		for _, q := range queues {
			for m, err := range k.List(ctx, q.name) {
				if errors.Is(err, broker.ErrNoQueue) {
					missing++
					break
				}
				if !yield(deadLetter{q.name, m}, err) || err != nil {
					return
				}
			}
		}
		if missing == len(queues) {
			yield(deadLetter{}, noQueueError(queues[0]))
		}
	}
}

func noQueueError(q peerQueue) error {
	if q.peerID == "" {
		return fmt.Errorf("there is no peer %q and no queue of this name (\"peerlink queue list\" lists the queues)", q.name)
	}
	return fmt.Errorf("there is no queue %s yet, \"peerlink serve\" makes it: are --broker, --queue-pattern and --state the same as the service's?", q.name)
}

// messageLine is the JSON form of a dead letter, without its body.
type messageLine struct {
	Queue       string    `json:"queue"`
	ID          string    `json:"id"`
	At          time.Time `json:"set_aside_at,omitzero"`
	Reason      string    `json:"reason"`
	Type        string    `json:"type"`
	ContentType string    `json:"content_type"`
	Bytes       int       `json:"bytes"` // of the body
}

// wholeMessage is a messageLine with the body, which is a string if it is text.
type wholeMessage struct {
	messageLine
	Body       *string `json:"body,omitempty"`
	BodyBase64 []byte  `json:"body_base64,omitempty"`
}

func (m deadLetter) line() messageLine {
	return messageLine{
		Queue: m.queue, ID: m.ID, At: m.At.UTC(), Reason: m.Reason, Type: m.Type, ContentType: m.ContentType, Bytes: len(m.Body),
	}
}

func (m deadLetter) whole() wholeMessage {
	w := wholeMessage{messageLine: m.line()}
	if utf8.Valid(m.Body) {
		body := string(m.Body)
		w.Body = &body
	} else {
		w.BodyBase64 = m.Body
	}
	return w
}

// shorten shortens a text that is too long for a table.
func shorten(s string) string {
	const most = 120
	r := []rune(s)
	if len(r) <= most {
		return s
	}
	return string(r[:most-1]) + "…"
}
