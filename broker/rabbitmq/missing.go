package rabbitmq

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/internal/wait"
)

// A policy that drops dead letters is detected by the length of their queue, which is
// compared with the messages that were added. Other processes of peerlink take messages
// out of the queue, for good or for a time: they send notices of that to the process that
// consumes the queue which the dead letters come from. No process receives the notices
// while there is no consumer, as while the peer is away: what vanishes meanwhile is assumed
// to have been taken out by such a process.

const (
	// lengthInterval is the time between two checks of the length of a dead-letter queue.
	// Notices arrive in less.
	lengthInterval = 30 * time.Second
	// stayTime is how long a message that was added after a loss has to stay in the queue
	// until the warning ends.
	stayTime = 10 * time.Minute
	// quietTime is how long no more messages have to be missing until the warning ends
	// although none was added.
	quietTime = 24 * time.Hour
	// browseTime is the time after its last notice when a browser is considered dead.
	browseTime = 10 * time.Minute
	// maxBrowsers bounds the number of browsers that are recorded for one queue.
	maxBrowsers = 100
)

// lengthCheck decides whether messages are missing in a dead-letter queue. There is one for
// each such queue, for all its consumers, one after the other.
type lengthCheck struct {
	queue string        // the dead-letter queue
	of    string        // the queue that the dead letters come from
	sem   chan struct{} // semaphore: has an element while a message is added, and during a check

	mu        sync.Mutex
	watched   bool      // the length is checked regularly
	known     bool      // expected and length are valid
	expected  int       // minimum length of the queue
	length    int       // length of the queue when it was last counted
	unnoticed bool      // there may have been no receiver for notices since then
	suspected bool      // the queue was shorter at the last check: a notice may be on its way
	addedAt   time.Time // when the first message was added since messages were missing; zero if none was
	missingAt time.Time // when messages were missing last; zero if there is no warning
	browsers  map[string]time.Time
}

// newLengthCheck returns the check of the dead-letter queue of a queue that will have a new
// consumer.
func (b *Broker) newLengthCheck(of string) *lengthCheck {
	b.mu.Lock()
	defer b.mu.Unlock()
	queue := b.deadLetterQueueOf(of)
	l := b.lengths[queue]
	if l == nil {
		l = &lengthCheck{queue: queue, of: of, sem: make(chan struct{}, 1)}
		if b.lengths == nil {
			b.lengths = make(map[string]*lengthCheck)
		}
		b.lengths[queue] = l
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.unnoticed = true
	return l
}

// lengthResult is the result of a check.
type lengthResult int

const (
	lengthUnclear lengthResult = iota
	messagesMissing
	messagesStay
)

// added records that a message was added.
func (l *lengthCheck) added() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.expected++
	l.length++
	if l.addedAt.IsZero() {
		l.addedAt = time.Now()
	}
}

// counted records the length of the queue after a message was added. Messages that were
// dropped for it are missing from then on, also if the consumer is closed next.
func (l *lengthCheck) counted(length int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.length = length
}

// needsCheck reports whether the length has to be checked before a message is added.
func (l *lengthCheck) needsCheck() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.known || l.unnoticed
}

// warns reports whether there is a warning that messages are missing.
func (l *lengthCheck) warns() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.missingAt.IsZero()
}

// startWatch reports whether the length is not yet checked regularly.
func (l *lengthCheck) startWatch() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	first := !l.watched
	l.watched = true
	return first
}

// forget makes the check begin anew: another process adds messages now, or the queue is
// gone.
func (l *lengthCheck) forget() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.known, l.suspected, l.addedAt, l.missingAt, l.browsers = false, false, time.Time{}, time.Time{}, nil
}

// noticed records a notice of a browser.
func (l *lengthCheck) noticed(n browseNotice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspected = false
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

// compare evaluates the length of the queue. Messages are missing if they are at two
// checks in a row, and no browser holds them. consumed is whether notices are received.
func (l *lengthCheck) compare(length int, consumed bool, stay time.Duration) lengthResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range l.browsers {
		if time.Since(at) > browseTime {
			delete(l.browsers, id)
			l.known = false // what it has removed is not known
		}
	}
	if vanished := l.length - length; l.unnoticed && vanished > 0 {
		l.expected = max(0, l.expected-vanished)
		l.addedAt = time.Time{} // it may be among them
	}
	l.length, l.unnoticed = length, !consumed
	short := l.known && length < l.expected
	switch {
	case len(l.browsers) > 0:
		return lengthUnclear
	case short && !l.suspected:
		l.suspected = true
		return lengthUnclear
	}
	l.known, l.expected, l.suspected = true, length, false // messages of other programs are added, too
	switch {
	case short:
		l.addedAt, l.missingAt = time.Time{}, time.Now()
		return messagesMissing
	case !l.missingAt.IsZero() && (!l.addedAt.IsZero() && time.Since(l.addedAt) >= stay || time.Since(l.missingAt) >= quietTime):
		l.missingAt = time.Time{}
		return messagesStay
	}
	return lengthUnclear
}

// watchLength checks the length of a dead-letter queue until the broker is closed.
func (b *Broker) watchLength(l *lengthCheck) {
	for wait.Sleep(b.life, b.lengthInterval) == nil {
		select {
		case l.sem <- struct{}{}:
			ctx, cancel := context.WithTimeout(b.life, closeTimeout) // publish waits for sem
			b.checkLength(ctx, l)
			cancel()
			<-l.sem
		case <-b.life.Done():
		}
	}
}

// checkLength checks the length of a dead-letter queue. No message is added meanwhile.
// While the queue that its messages come from has no consumer here, the length is checked
// only for the end of a warning.
func (b *Broker) checkLength(ctx context.Context, l *lengthCheck) {
	consumed := b.consumes(l.of)
	if !consumed && !l.warns() {
		return
	}
	n, exists, err := b.countQueue(ctx, l.queue)
	switch {
	case err != nil:
		return // checked next time
	case !consumed && !exists:
		l.forget()
		b.endMissing(l.queue)
		return
	}
	switch l.compare(n, consumed, b.stayTime) {
	case messagesMissing:
		b.setRisk(l.queue, func(r *risk) {
			r.missing = "it has fewer messages than were put into it: unless somebody has taken some out with another program, a policy of RabbitMQ drops them"
		})
	case messagesStay:
		b.endMissing(l.queue)
	}
}

// countQueue returns the number of messages of a queue that are not delivered to a
// consumer, and whether the queue exists.
func (b *Broker) countQueue(ctx context.Context, queue string) (n int, exists bool, err error) {
	type count struct {
		n      int
		exists bool
	}
	counted := make(chan count, 1) // written also after onDeclaring has returned an error
	if err := b.onDeclaring(ctx, func(d declarer) error {
		n, exists, err := d.count(queue)
		counted <- count{n, exists}
		return err
	}); err != nil {
		return 0, false, err
	}
	c := <-counted
	return c.n, c.exists, nil
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

// endMissing ends the warning that messages are missing.
func (b *Broker) endMissing(queue string) {
	ended := false
	b.setRisk(queue, func(r *risk) {
		ended = r.missing != ""
		r.missing = ""
	})
	if ended {
		b.log.Info("messages are no longer missing among those set aside", "queue", queue)
	}
}

// leaveWatch is called when a queue has a consumer. If that is of another process, the
// length of the dead-letter queue is checked there, and the warning ends here.
func (b *Broker) leaveWatch(queue string) {
	b.mu.Lock()
	l := b.lengths[b.deadLetterQueueOf(queue)]
	b.mu.Unlock()
	if l != nil && !b.consumes(queue) {
		l.forget()
		b.endMissing(l.queue)
	}
}

// browseType is the type of a message with a notice. It is published to the lock queue,
// see [Broker.toLockHolder].
const browseType = "peerlink-browse"

// browseNotice is sent before a browser takes messages out of a dead-letter queue, and at
// its end.
type browseNotice struct {
	Queue   string `json:"queue"`   // the dead-letter queue
	Browser string `json:"browser"` // a random ID
	Done    bool   `json:"done"`
	Removed int    `json:"removed"` // number of messages that were removed, if Done
}

// maxNotice bounds a notice in bytes: names have 255 at most, JSON makes six of one at
// most.
const maxNotice = 2000

// notice sends a notice. Failures, as during an alarm of RabbitMQ, are only logged: at
// worst, there is a warning that ends by itself.
func (br *browser) notice(ctx context.Context, done bool) {
	ctx, cancel := context.WithTimeout(ctx, closeTimeout)
	defer cancel()
	body, err := json.Marshal(browseNotice{Queue: br.queue, Browser: br.id, Done: done, Removed: br.removed})
	if err == nil {
		err = br.broker.toLockHolder(ctx, br.of, amqp.Publishing{Type: browseType, Body: body})
	}
	if err != nil {
		br.broker.log.Debug("a service is not told of messages taken out of a queue", "queue", br.queue, "err", err)
	}
}

// noteBrowser receives a message of the lock queue with a notice.
func (c *consumer) noteBrowser(body []byte) {
	var n browseNotice
	if len(body) > maxNotice || json.Unmarshal(body, &n) != nil || n.Queue != c.deadLetters.to.queue || n.Removed < 0 || n.Browser == "" {
		return
	}
	c.deadLetters.length.noticed(n)
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
	l.closeChannel(ch) // RabbitMQ answers after it has put the message into the queue
	return nil
}
