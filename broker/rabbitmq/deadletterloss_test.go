package rabbitmq

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// checkLengths checks the length of a dead-letter queue as many times as are needed to
// detect missing messages.
func checkLengths(t *testing.T, bc broker.Consumer) {
	t.Helper()
	a := &bc.(*consumer).deadLetters
	for range 2 {
		a.length.sem <- struct{}{}
		a.to.broker.checkLength(testContext(t), a.length)
		<-a.length.sem
	}
}

// setAsideMessages sends messages to a peer, and moves them to the dead-letter queue.
func setAsideMessages(t *testing.T, o *testClient, q broker.PeerBinding, c broker.Consumer, count int) {
	t.Helper()
	for n := range count {
		o.check(o.send(q.Exchange, q.PeerID+".1", amqp.Publishing{Type: "T", Body: fmt.Append(nil, time.Now(), n)}))
		setAsideNext(t, c, "reason")
	}
}

// expect waits until the notices of other processes have arrived, so that length
// messages are expected in the dead-letter queue, and no browser is recorded.
func expect(t *testing.T, bc broker.Consumer, length int) {
	t.Helper()
	l := bc.(*consumer).deadLetters.length
	eventually(t, "notices", func() error {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.expected != length || len(l.browsers) > 0 {
			return fmt.Errorf("%d messages are expected, want %d, with %d browsers", l.expected, length, len(l.browsers))
		}
		return nil
	})
}

// There is no warning of missing messages while, or after, other processes of peerlink
// list dead letters, retry them, or drop them, even several of them at once, while
// further ones are added. Messages that are really missing are still detected
// afterwards.
func TestTakenOutIsNotMissing(t *testing.T) {
	s := rabbittest.Get(t)
	for _, queueType := range []QueueType{Classic, Quorum} {
		t.Run(string(queueType), func(t *testing.T) {
			o := newTestClient(t, s)
			b := openTest(t, s.URL(), Options{QueueType: queueType})
			q, c := bindAndConsume(t, b)
			queue := q.Queues[0]
			wantNoWarnings := func(when string) {
				t.Helper()
				checkLengths(t, c)
				if w := b.Warnings(); len(w) > 0 {
					t.Errorf("%s: warnings %q", when, w)
				}
			}
			setAsideMessages(t, o, q, c, 5)
			wantNoWarnings("at first")
			one, other := openTest(t, s.URL(), Options{}), openTest(t, s.URL(), Options{})
			var ids []string
			for m, err := range one.List(testContext(t), queue) {
				o.check(err)
				ids = append(ids, m.ID)
				if len(ids) > 1 {
					continue
				}
				setAsideMessages(t, o, q, c, 1)
				wantNoWarnings("while one lists")
				for _, err := range other.List(testContext(t), queue) {
					o.check(err)
					setAsideMessages(t, o, q, c, 1)
					wantNoWarnings("while two list")
				}
				wantNoWarnings("when the second has listed")
			}
			wantNoWarnings("when both have listed")
			expect(t, c, 7)
			if n, err := one.Drop(testContext(t), queue, ids[:2]); n != 2 || err != nil {
				t.Fatalf("%d dropped, %v", n, err)
			}
			wantNoWarnings("after dropping")
			expect(t, c, 5)
			if n, err := other.Retry(testContext(t), queue, ids[2:3]); n != 1 || err != nil {
				t.Fatalf("%d sent again, %v", n, err)
			}
			setAsideMessages(t, o, q, c, 1) // the one that was sent again
			wantNoWarnings("after sending again")
			setAsideMessages(t, o, q, c, 3)
			wantNoWarnings("at the end")
			o.take(referenceDeadLetterQueue(queue), 1)
			checkLengths(t, c)
			if w := strings.Join(b.Warnings(), ","); !strings.Contains(w, "fewer messages") {
				t.Errorf("warnings %q", w)
			}
		})
	}
}

// Messages that RabbitMQ drops, at once or later, are detected. (A policy does the same as
// these arguments.)
func TestMissing(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	for name, args := range map[string]amqp.Table{
		"length": {"x-max-length": 3},
		"none":   {"x-max-length": 0},
		"bytes":  {"x-max-length-bytes": 100},
		"time":   {"x-message-ttl": 1},
	} {
		t.Run(name, func(t *testing.T) {
			b := openTest(t, s.URL(), Options{})
			q := testPeer()
			_, err := o.QueueDeclare(referenceDeadLetterQueue(q.Queues[0]), true, false, false, false, args)
			o.check(err)
			o.check(b.Bind(testContext(t), q))
			c, err := b.Consume(testContext(t), q.Queues[0])
			o.check(err)
			defer c.Close()
			setAsideMessages(t, o, q, c, 5)
			eventually(t, "warning", func() error {
				checkLengths(t, c)
				if w := strings.Join(b.Warnings(), ","); !strings.Contains(w, "fewer messages") {
					return fmt.Errorf("warnings %q", w)
				}
				return nil
			})
		})
	}
}

// Messages that RabbitMQ drops are detected also if each of them was made a dead letter by another
// consumer, as with a peer that ends the connection whenever it refuses a message.
func TestMissingAcrossConsumers(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	b := openTest(t, s.URL(), Options{})
	b.lengthInterval = time.Hour
	q := testPeer()
	_, err := o.QueueDeclare(referenceDeadLetterQueue(q.Queues[0]), true, false, false, false, amqp.Table{"x-max-length": 1})
	o.check(err)
	o.check(b.Bind(testContext(t), q))
	for range 5 {
		c, err := b.Consume(testContext(t), q.Queues[0])
		o.check(err)
		setAsideMessages(t, o, q, c, 1)
		o.check(c.Close())
	}
	if w := strings.Join(b.Warnings(), ","); !strings.Contains(w, "fewer messages") {
		t.Errorf("warnings %q", w)
	}
}

// Messages that another process of peerlink removes while the peer is disconnected
// are not missing, although the service gets no notice of that.
func TestTakenOutWhileAway(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	b := openTest(t, s.URL(), Options{})
	q, c := bindAndConsume(t, b)
	setAsideMessages(t, o, q, c, 3)
	o.check(c.Close())
	other := openTest(t, s.URL(), Options{})
	var ids []string
	for m, err := range other.List(testContext(t), q.Queues[0]) {
		o.check(err)
		ids = append(ids, m.ID)
	}
	if n, err := other.Drop(testContext(t), q.Queues[0], ids[:2]); n != 2 || err != nil {
		t.Fatalf("%d dropped, %v", n, err)
	}
	c, err := b.Consume(testContext(t), q.Queues[0])
	o.check(err)
	defer c.Close()
	checkLengths(t, c)
	setAsideMessages(t, o, q, c, 1)
	checkLengths(t, c)
	if w := b.Warnings(); len(w) > 0 {
		t.Errorf("warnings %q", w)
	}
	o.take(referenceDeadLetterQueue(q.Queues[0]), 1)
	checkLengths(t, c)
	if w := strings.Join(b.Warnings(), ","); !strings.Contains(w, "fewer messages") {
		t.Errorf("warnings %q", w)
	}
}

// The warning ends when a message that was added later has stayed in the queue, also if
// there is no consumer any more, and when another process consumes the queue. Without
// a test's help, the service checks the length by itself.
func TestMissingEnds(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	for _, elsewhere := range []bool{false, true} {
		log := new(logBuffer)
		b := openTest(t, s.URL(), Options{Logger: log.logger()})
		b.lengthInterval = time.Millisecond
		warned := func(want bool) {
			t.Helper()
			eventually(t, "warning", func() error {
				if w := strings.Join(b.Warnings(), ","); strings.Contains(w, "fewer messages") != want {
					return fmt.Errorf("elsewhere %v: warnings %q", elsewhere, w)
				}
				return nil
			})
		}
		q, c := bindAndConsume(t, b)
		setAsideMessages(t, o, q, c, 2)
		o.take(referenceDeadLetterQueue(q.Queues[0]), 1)
		warned(true)
		setAsideMessages(t, o, q, c, 1)
		checkLengths(t, c)
		warned(true) // it has not stayed for long
		o.check(c.Close())
		if elsewhere {
			next, err := openTest(t, s.URL(), Options{}).Consume(testContext(t), q.Queues[0])
			o.check(err)
			defer next.Close()
			if err := b.CheckInUse(testContext(t), q.Queues[0]); !errors.Is(err, broker.ErrInUse) {
				t.Errorf("the queue is not in use: %v", err)
			}
		} else {
			l := c.(*consumer).deadLetters.length
			l.sem <- struct{}{}
			b.recoveryTime = 0
			<-l.sem
		}
		warned(false)
		eventually(t, "the log", func() error { // which comes after the warning has ended
			if !strings.Contains(log.String(), "the warning ends") {
				return fmt.Errorf("the log does not say so:\n%s", log)
			}
			return nil
		})
	}
}

// While a browser holds messages, the length is not evaluated. If the browser has ended
// without a notice, the length is not evaluated for browseTime, and messages that the
// browser has removed are not missing. The warning ends when added messages have stayed, or
// when none was missing for noLossTime. The number of browsers is bounded.
func TestBrowserWithoutEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l lengthCheck
		compare := func(length int, want warningAction) {
			t.Helper()
			if got := l.evaluate(length, true, recoveryTime); got != want {
				t.Errorf("length %d: result %d, want %d", length, got, want)
			}
		}
		compare(10, keepWarning)
		l.recordNotice(browseNotice{Browser: "one"})
		for range 3 {
			compare(1, keepWarning)
		}
		time.Sleep(browseTime + 1)
		for range 3 {
			compare(1, keepWarning)
		}
		l.recordAdded()
		compare(1, keepWarning)
		compare(1, startWarning)
		l.recordAdded()
		compare(2, keepWarning)
		time.Sleep(recoveryTime)
		compare(2, endWarning)
		compare(1, keepWarning)
		compare(1, startWarning)
		time.Sleep(noLossTime - 1)
		compare(1, keepWarning)
		time.Sleep(time.Nanosecond)
		compare(1, endWarning)
		compare(1, keepWarning)
		for n := range 2 * maxBrowsers {
			l.recordNotice(browseNotice{Browser: fmt.Sprint(n)})
		}
		if len(l.browsers) != maxBrowsers {
			t.Errorf("%d browsers are recorded", len(l.browsers))
		}
		l.recordNotice(browseNotice{Browser: "0", Done: true, Removed: 1 << 62})
		if l.expected != 0 {
			t.Errorf("%d messages are expected", l.expected)
		}
	})
}

// Only notices about the process's own dead-letter queue have an effect, and invalid
// notices are ignored.
func TestHostileNotices(t *testing.T) {
	c := &consumer{deadLetters: newDeadLetterPublisher(&Broker{opts: Options{DeadLetterSuffix: defaultDeadLetterSuffix}}, "q")}
	c.deadLetters.length.expected = 5
	for _, body := range []string{
		"", "null", "[]", "{", `{"queue":"q.XQ"}`, `{"queue":"q","browser":"b","done":true,"removed":3}`,
		`{"queue":"q.XQ","browser":"b","done":true,"removed":-3}`, `{"queue":"q.XQ","browser":"b","done":true,"removed":1e30}`,
		`{"queue":"q.XQ","browser":"` + strings.Repeat("b", maxBrowseNotice) + `"}`,
	} {
		c.receiveBrowseNotice([]byte(body))
		if l := c.deadLetters.length; l.expected != 5 || len(l.browsers) > 0 {
			t.Errorf("the notice %.60s has an effect", body)
		}
	}
	c.receiveBrowseNotice([]byte(`{"queue":"q.XQ","browser":"b","done":true,"removed":3}`))
	if c.deadLetters.length.expected != 2 {
		t.Error("a valid notice has no effect")
	}
}
