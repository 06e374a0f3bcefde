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
// consumes the queue which the dead letters come from.

const (
	// lengthInterval is the time between two checks of the length of a dead-letter queue.
	// Notices arrive in less.
	lengthInterval = 30 * time.Second
	// stayTime is how long a message that was added after a loss has to stay in the queue
	// until the warning ends.
	stayTime = 10 * time.Minute
	// browseTime is the time after its last notice when a browser is considered dead.
	browseTime = 10 * time.Minute
	// maxBrowsers bounds the number of browsers that are recorded for one queue.
	maxBrowsers = 100
)

// lengthCheck decides whether messages are missing in a dead-letter queue.
type lengthCheck struct {
	mu        sync.Mutex
	known     bool      // expected is valid
	expected  int       // minimum length of the queue
	suspected bool      // the queue was shorter at the last check: a notice may be on its way
	addedAt   time.Time // when the first message was added since messages were missing; zero if none was
	browsers  map[string]time.Time
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
	if l.addedAt.IsZero() {
		l.addedAt = time.Now()
	}
}

// noticed records a notice of a browser.
func (l *lengthCheck) noticed(n browseNotice) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.suspected = false
	if n.Done {
		delete(l.browsers, n.Browser)
		l.expected = max(0, l.expected-n.Removed)
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
// checks in a row, and no browser holds them.
func (l *lengthCheck) compare(length int, stay time.Duration) lengthResult {
	l.mu.Lock()
	defer l.mu.Unlock()
	for id, at := range l.browsers {
		if time.Since(at) > browseTime {
			delete(l.browsers, id)
			l.known = false // what it has removed is not known
		}
	}
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
		l.addedAt = time.Time{}
		return messagesMissing
	case !l.addedAt.IsZero() && time.Since(l.addedAt) >= stay:
		return messagesStay
	}
	return lengthUnclear
}

// watch checks the length of the queue until the consumer is closed.
func (a *deadLetterPublisher) watch() {
	for wait.Sleep(a.life, a.to.broker.lengthInterval) == nil {
		select {
		case a.sem <- struct{}{}:
			ctx, cancel := context.WithTimeout(a.life, closeTimeout) // publish waits for sem
			a.checkLength(ctx)
			cancel()
			<-a.sem
		case <-a.life.Done():
		}
	}
}

// checkLength checks the length of the queue. No message is added meanwhile.
func (a *deadLetterPublisher) checkLength(ctx context.Context) {
	b := a.to.broker
	counted := make(chan int, 1) // written also after onDeclaring has returned an error
	if b.onDeclaring(ctx, func(d declarer) error {
		n, _, err := d.count(a.to.queue)
		counted <- n
		return err
	}) != nil {
		return // checked next time
	}
	switch a.length.compare(<-counted, b.stayTime) {
	case messagesMissing:
		b.setRisk(a.to.queue, func(r *risk) {
			r.missing = "it has fewer messages than were put into it: unless somebody has taken some out with another program, a policy of RabbitMQ drops them"
		})
	case messagesStay:
		b.endMissing(a.to.queue)
	}
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
	missing, own := b.risks[b.deadLetterQueueOf(queue)].missing != "", false
	if missing {
		for c := range b.consumers {
			own = own || c.queue == queue
		}
	}
	b.mu.Unlock()
	if missing && !own {
		b.endMissing(b.deadLetterQueueOf(queue))
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
