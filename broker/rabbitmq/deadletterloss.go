package rabbitmq

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/internal/wait"
)

// A policy of RabbitMQ may drop messages of a dead-letter queue. AMQP does not show policies,
// so lost messages are detected by the length of the queue, which is compared with the
// number of messages that were added.
//
// Other processes of peerlink take messages out of a dead-letter queue too, permanently or
// temporarily: a browser (see [browser]) sends notices of that to the process that consumes the
// queue which the dead letters come from. While that queue has no consumer, as while the
// peer is unreachable, no process receives the notices: messages that vanish then are assumed to
// have been taken out by a browser.

const (
	// lengthInterval is the time between two checks of the length of a dead-letter queue. A
	// notice arrives in a shorter time.
	lengthInterval = 30 * time.Second
	// recoveryTime is how long a message that was added after a loss must stay in the queue
	// until the warning ends.
	recoveryTime = 10 * time.Minute
	// noLossTime is the time without a further loss after which the warning ends although no
	// message was added.
	noLossTime = 24 * time.Hour
	// browseTime is the time after the last notice of a browser when its process is
	// considered to have ended.
	browseTime = 10 * time.Minute
	// maxBrowsers bounds the number of browsers that are recorded for one queue.
	maxBrowsers = 100
)

// lengthCheck decides whether there is a warning that messages of a dead-letter queue are
// lost. There is one lengthCheck for each dead-letter queue; the consumers that move
// messages to the queue use it one after the other.
type lengthCheck struct {
	queue  string        // the dead-letter queue
	source string        // the queue that the dead letters come from
	sem    chan struct{} // semaphore: has an element while a message is added, and during a check

	mu       sync.Mutex
	watched  bool // watchLength is running
	valid    bool // expected is valid
	expected int  // number of messages that the queue should have at least
	length   int  // length of the queue when it was last counted, adjusted by recordAdded and recordNotice
	// mayHaveMissedNotices reports whether, at some time since the queue was last counted,
	// there may have been no receiver for notices.
	mayHaveMissedNotices bool
	wasShort             bool                 // the last check found less than expected, and a notice may still arrive
	firstAddedAt         time.Time            // when the first message was added since messages were last missing, or vanished without a notice; zero if none was
	lastMissingAt        time.Time            // when a check last found messages missing; zero if there is no warning
	browsers             map[string]time.Time // by ID of an active browser: when its last notice arrived
}

// lengthCheckFor returns the lengthCheck of the dead-letter queue of source, and creates it
// if there is none. It is called for each new consumer of source, and sets
// mayHaveMissedNotices: before the consumer, there may have been no receiver for notices.
func (b *Broker) lengthCheckFor(source string) *lengthCheck {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.deadLetterQueue(source)
	l := b.lengthChecks[queue]
	if l == nil {
		l = &lengthCheck{queue: queue, source: source, sem: make(chan struct{}, 1)}
		if b.lengthChecks == nil {
			b.lengthChecks = make(map[string]*lengthCheck)
		}
		b.lengthChecks[queue] = l
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.mayHaveMissedNotices = true
	return l
}

// warningAction is what the caller of lengthCheck.evaluate does with the warning that
// messages are lost.
type warningAction int

const (
	keepWarning  warningAction = iota // neither start nor end it
	startWarning                      // unless there is one
	endWarning
)

// recordAdded records that a message was added.
func (l *lengthCheck) recordAdded() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected++
	l.length++
	if l.firstAddedAt.IsZero() {
		l.firstAddedAt = time.Now()
	}
}

// setLength sets the length of the queue, counted after a message was added. If RabbitMQ has
// dropped messages to make room for the added one, they are missing from this count, and so
// will not be mistaken for messages taken out while there was no receiver for notices.
func (l *lengthCheck) setLength(length int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.length = length
}

// needsCheck reports whether the length has to be checked before a message is added.
func (l *lengthCheck) needsCheck() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.valid || l.mayHaveMissedNotices
}

// hasWarning reports whether there is a warning that messages are lost.
func (l *lengthCheck) hasWarning() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.lastMissingAt.IsZero()
}

// setWatched records that watchLength is running. It reports whether watchLength was not
// running before.
func (l *lengthCheck) setWatched() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.watched
	l.watched = true
	return first
}

// reset discards the expected length, the browsers and the warning: another process adds
// messages now, or the queue was deleted.
func (l *lengthCheck) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.valid, l.wasShort, l.firstAddedAt, l.lastMissingAt, l.browsers = false, false, time.Time{}, time.Time{}, nil
}

// recordNotice records a notice of a browser.
func (l *lengthCheck) recordNotice(n browseNotice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.wasShort = false
	if n.Done {
		delete(l.browsers, n.Browser)
		l.expected = max(0, l.expected-n.Removed)
		l.length = max(0, l.length-n.Removed)
		return
	}
	if _, known := l.browsers[n.Browser]; known || len(l.browsers) < maxBrowsers {
		if l.browsers == nil {
			l.browsers = make(map[string]time.Time)
		}
		l.browsers[n.Browser] = time.Now()
	}
}

// evaluate compares the length of the queue with the expected length. It returns startWarning
// if two successive checks find less than expected, and no browser is active, which would
// hold messages; endWarning if a message that was added after the loss has stayed in the
// queue for recoveryTime, or nothing was missing for noLossTime; and otherwise keepWarning.
// consumed is whether this process consumes the source, and so receives notices.
func (l *lengthCheck) evaluate(length int, consumed bool, recoveryTime time.Duration) warningAction {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range l.browsers {
		if time.Since(at) > browseTime {
			delete(l.browsers, id)
			l.valid = false // how many messages the browser has removed is not known
		}
	}
	if vanished := l.length - length; l.mayHaveMissedNotices && vanished > 0 {
		l.expected = max(0, l.expected-vanished)
		l.firstAddedAt = time.Time{} // the added message may be among those that vanished
	}
	l.length, l.mayHaveMissedNotices = length, !consumed
	short := l.valid && length < l.expected
	switch {
	case len(l.browsers) > 0:
		return keepWarning
	case short && !l.wasShort:
		l.wasShort = true
		return keepWarning
	}
	l.valid, l.expected, l.wasShort = true, length, false // the length includes messages added by other programs
	switch {
	case short:
		l.firstAddedAt, l.lastMissingAt = time.Time{}, time.Now()
		return startWarning
	case !l.lastMissingAt.IsZero() && (!l.firstAddedAt.IsZero() && time.Since(l.firstAddedAt) >= recoveryTime || time.Since(l.lastMissingAt) >= noLossTime):
		l.lastMissingAt = time.Time{}
		return endWarning
	}
	return keepWarning
}

// watchLength checks the length of a dead-letter queue until the broker is closed.
func (b *Broker) watchLength(l *lengthCheck) {
	for wait.Sleep(b.life, b.lengthInterval) == nil {
		select {
		case l.sem <- struct{}{}:
			ctx, cancel := context.WithTimeout(b.life, closeTimeout) // short: publish waits for sem
			b.checkLength(ctx, l)
			cancel()
			<-l.sem
		case <-b.life.Done():
		}
	}
}

// checkLength counts a dead-letter queue, and starts or ends the warning that messages are
// lost. The caller holds l.sem, so that no message is added meanwhile. While this process
// does not consume the queue that the dead letters come from, checkLength only looks for the
// end of a warning.
func (b *Broker) checkLength(ctx context.Context, l *lengthCheck) {
	consumed := b.consumes(l.source)
	if !consumed && !l.hasWarning() {
		return
	}
	n, exists, err := b.countQueue(ctx, l.queue)
	switch {
	case err != nil:
		return // the next check follows
	case !consumed && !exists:
		l.reset()
		b.endLossWarning(l.queue)
		return
	}
	switch l.evaluate(n, consumed, b.recoveryTime) {
	case startWarning:
		b.setRisk(l.queue, func(r *risk) {
			r.missing = "it has fewer messages than were put into it: unless somebody has taken some out with another program, a policy of RabbitMQ drops them"
		})
	case endWarning:
		b.endLossWarning(l.queue)
	}
}

// countQueue returns the number of messages of a queue that are not delivered to a
// consumer, and whether the queue exists.
func (b *Broker) countQueue(ctx context.Context, queue string) (n int, exists bool, err error) {
	type count struct {
		n      int
		exists bool
	}
	c, err := declarerResult(ctx, b, func(d declarer) (count, error) {
		n, exists, err := d.count(queue)
		return count{n, exists}, err
	})
	return c.n, c.exists, err
}

// consumes reports whether this process has a consumer of a queue.
func (b *Broker) consumes(queue string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for c := range b.consumers {
		if c.queue == queue {
			return true
		}
	}
	return false
}

// endLossWarning ends the warning that messages of a dead-letter queue are lost, if there is
// one.
func (b *Broker) endLossWarning(queue string) {
	ended := false
	b.setRisk(queue, func(r *risk) {
		ended = r.missing != ""
		r.missing = ""
	})
	if ended {
		b.log.Info("no further messages are known to be lost among those set aside, the warning ends; what was lost stays lost", "queue", queue)
	}
}

// resetIfConsumedElsewhere discards the expected length of the dead-letter queue, and ends the
// warning, if this process does not consume queue. It is called when queue is known to have a
// consumer: if the consumer belongs to another process, that process checks the length.
func (b *Broker) resetIfConsumedElsewhere(queue string) {
	b.mu.Lock()
	l := b.lengthChecks[b.deadLetterQueue(queue)]
	b.mu.Unlock()
	if l != nil && !b.consumes(queue) {
		l.reset()
		b.endLossWarning(l.queue)
	}
}

// browseNoticeType is the type of a message with a browseNotice, which is published to the
// lock queue (see [Broker.toLockHolder]).
const browseNoticeType = "peerlink-browse"

// browseNotice is a notice that a browser sends before each time that it takes messages out
// of a dead-letter queue, and at its end.
type browseNotice struct {
	Queue   string `json:"queue"`   // the dead-letter queue
	Browser string `json:"browser"` // a random ID
	Done    bool   `json:"done"`
	Removed int    `json:"removed"` // number of messages that were removed, if Done
}

// maxBrowseNotice is the largest notice in bytes: the name of a queue has at most 255 bytes,
// and each becomes at most six in JSON.
const maxBrowseNotice = 2000

// sendNotice sends a notice; done is whether the browser ends. Failures, as during an alarm
// of RabbitMQ, are only logged: at worst, they cause a warning, which ends by itself.
func (br *browser) sendNotice(ctx context.Context, done bool) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	body, err := json.Marshal(browseNotice{Queue: br.queue, Browser: br.id, Done: done, Removed: br.removed})
	if err == nil {
		err = br.broker.toLockHolder(ctx, br.source, amqp.Publishing{Type: browseNoticeType, Body: body})
	}
	if err != nil {
		br.broker.log.Debug("a notice of messages taken out of a dead-letter queue can not be sent to the service that adds messages to it", "queue", br.queue, "err", err)
	}
}

// receiveBrowseNotice records the notice in a message of the lock queue, and ignores an
// invalid one.
func (c *consumer) receiveBrowseNotice(body []byte) {
	var n browseNotice
	if len(body) > maxBrowseNotice || json.Unmarshal(body, &n) != nil || n.Queue != c.deadLetters.to.queue || n.Removed < 0 || n.Browser == "" {
		return
	}
	c.deadLetters.length.recordNotice(n)
}

// toLockHolder publishes a message to the process that holds the lock of a queue. RabbitMQ
// drops it if there is none.
func (b *Broker) toLockHolder(ctx context.Context, queue string, m amqp.Publishing) error {
	l, ch, err := b.publishing.open(ctx, func(_ *liveConn, ch *amqp.Channel) error {
		return explain(ch.PublishWithContext(ctx, "", lockQueue(queue), false, false, m))
	})
	if err != nil {
		return err
	}
	l.closeChannel(ch) // RabbitMQ confirms the closing after it has put the message into the queue
	return nil
}
