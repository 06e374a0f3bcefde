package rabbitmq

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/brokertest"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/internal/dnstest"
)

// names is the name server of all tests, once TestMain has started it.
var names *dnstest.Server

func TestMain(m *testing.M) {
	var err error
	if names, err = dnstest.Start(); err != nil {
		panic(err)
	}
	os.Exit(rabbittest.Run(m))
}

// testLimit bounds the wait for an expected event.
const testLimit = 40 * time.Second

func testContext(tb testing.TB) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), testLimit)
	tb.Cleanup(cancel)
	return ctx
}

// eventually retries until do succeeds.
func eventually(tb testing.TB, what string, do func() error) {
	tb.Helper()
	for deadline := time.Now().Add(testLimit); ; time.Sleep(5 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			tb.Fatalf("%s: %v", what, err)
		}
	}
}

// logBuffer stores log output.
type logBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *logBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *logBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

func (b *logBuffer) logger() *slog.Logger { return slog.New(slog.NewTextHandler(b, nil)) }

// openTest opens a broker, and closes it at the end of the test.
func openTest(tb testing.TB, url string, opts Options) *Broker {
	tb.Helper()
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.NewTextHandler(io.Discard, nil))
	}
	b, err := Open(url, opts)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { b.Close() })
	return b
}

// testClient is a plain client, for checks independent of the broker.
type testClient struct {
	testing.TB
	conn *amqp.Connection
	*amqp.Channel
	returned chan amqp.Return
}

func newTestClient(tb testing.TB, s *rabbittest.Server) *testClient {
	tb.Helper()
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { conn.Close() })
	ch, err := conn.Channel()
	if err != nil {
		tb.Fatal(err)
	}
	o := &testClient{TB: tb, conn: conn, Channel: ch, returned: ch.NotifyReturn(make(chan amqp.Return, 1000))}
	o.check(ch.Confirm(false))
	return o
}

func (o *testClient) check(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// inbox declares an exchange for received messages, with a queue of the same
// name, as an application does.
func (o *testClient) inbox(name string) {
	o.Helper()
	o.check(o.ExchangeDeclare(name, "topic", true, false, false, false, nil))
	_, err := o.QueueDeclare(name, true, false, false, false, nil)
	o.check(err)
	o.check(o.QueueBind(name, "#", name, false, nil))
}

// send publishes messages and waits until they are durable.
func (o *testClient) send(exchange, key string, messages ...amqp.Publishing) error {
	var last *amqp.DeferredConfirmation
	for _, m := range messages {
		var err error
		if last, err = o.PublishWithDeferredConfirm(exchange, key, true, false, m); err != nil {
			return err
		}
	}
	if !last.Wait() {
		return fmt.Errorf("RabbitMQ has not accepted a message for exchange %s", exchange)
	}
	select {
	case r := <-o.returned:
		return fmt.Errorf("%w: %s", broker.ErrUnroutable, r.ReplyText)
	default:
		return nil
	}
}

// try sends a message, and closes the client's connection.
func (o *testClient) try(exchange, key string, m amqp.Publishing) error {
	defer o.conn.Close()
	return o.send(exchange, key, m)
}

func publishings(ms []broker.Outgoing) []amqp.Publishing {
	var out []amqp.Publishing
	for _, m := range ms {
		out = append(out, amqp.Publishing{DeliveryMode: amqp.Persistent, Type: m.Type, ContentType: m.ContentType, Body: m.Body})
	}
	return out
}

// take consumes messages of a queue: n, or all that there are if n is -1.
func (o *testClient) take(queue string, n int) []amqp.Delivery {
	o.Helper()
	var got []amqp.Delivery
	for deadline := time.Now().Add(testLimit); len(got) != n; {
		d, ok, err := o.Get(queue, false)
		// An overloaded RabbitMQ closes a channel if a quorum queue does not answer in
		// time. Messages that were not acknowledged are in the queue again.
		if hasReplyCode(err, amqp.InternalError) && time.Now().Before(deadline) {
			o.Channel, err = o.conn.Channel()
			o.check(err)
			continue
		}
		o.check(err)
		switch {
		case ok:
			o.check(d.Ack(false))
			got = append(got, d)
		case n < 0:
			return got
		case time.Now().After(deadline):
			o.Fatalf("queue %s: after %d of %d messages there are no more", queue, len(got), n)
		default:
			time.Sleep(5 * time.Millisecond)
		}
	}
	return got
}

// suffixes is the number of suffixes that make names unique in the RabbitMQ that all tests
// share.
var suffixes atomic.Int64

func suffix() string { return fmt.Sprintf("-%d", suffixes.Add(1)) }

// testPeer describes the objects of a new peer, not declared yet.
func testPeer() broker.PeerBinding {
	id := "1234abcd" + suffix()
	return broker.PeerBinding{PeerID: id, Prefix: "aa", Exchange: "to_creditors", BindingKey: id + ".#", Queues: []string{"peer." + id + ".0"}}
}

// The broker has the behaviour that every broker must have.
func TestBroker(t *testing.T) { brokertest.Run(t, openFixture(Classic)) }

// The broker has this behaviour also with quorum queues.
func TestBrokerQuorum(t *testing.T) {
	open := openFixture(Quorum)
	brokertest.Run(t, func(t *testing.T) brokertest.Fixture {
		f := open(t)
		f.Stall = nil // slow, and independent of the queue type
		return f
	})
}

// A closed broker leaves no goroutine and no connection, whatever was in use.
func TestNothingLeft(t *testing.T) {
	s := rabbittest.Get(t)
	before := runtime.NumGoroutine()
	b := openTest(t, s.URL(), Options{})
	for range 3 {
		q, c := bindAndConsume(t, b)
		o := newTestClient(t, s)
		o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, 10))...))
		o.check(o.conn.Close())
		setAsideNext(t, c, "reason")
		p := openStream(t, b)
		_ = p.Publish(testContext(t), incoming("nowhere", "", "1"))
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "ending goroutines", func() error {
		if n := runtime.NumGoroutine(); n > before {
			return fmt.Errorf("there are %d goroutines, %d before", n, before)
		}
		return nil
	})
}

func openFixture(queueType QueueType) func(t *testing.T) brokertest.Fixture {
	return func(t *testing.T) brokertest.Fixture {
		s := rabbittest.Get(t)
		opts := Options{QueueType: queueType, MaxPending: 100}
		b := openTest(t, s.URL(), opts)
		o := newTestClient(t, s)
		suffix := suffix()
		o.inbox("accounts_in" + suffix)
		noInbox := "nobody" + suffix
		o.check(o.ExchangeDeclare(noInbox, "topic", true, false, false, false, nil))
		return brokertest.Fixture{
			Broker:  b,
			Suffix:  suffix,
			NoInbox: noInbox,
			Send: func(t testing.TB, exchange, key string, ms ...broker.Outgoing) error {
				if len(ms) == 0 {
					return nil
				}
				return newTestClient(t, s).send(exchange, key, publishings(ms)...)
			},
			Receive: func(t testing.TB, n int) []broker.Incoming {
				var got []broker.Incoming
				for _, d := range newTestClient(t, s).take("accounts_in"+suffix, n) {
					m := broker.Incoming{Exchange: d.Exchange, RoutingKey: d.RoutingKey, Type: d.Type, ContentType: d.ContentType, Body: d.Body}
					for name, value := range d.Headers {
						m.Headers = append(m.Headers, broker.Header{Name: name, Value: value})
					}
					got = append(got, m)
				}
				return got
			},
			DeadLetters: func(t testing.TB, queue string) []brokertest.DeadLetter {
				var aside []brokertest.DeadLetter
				for _, d := range newTestClient(t, s).take(queue+".XQ", -1) {
					reason, _ := d.Headers["x-peerlink-reason"].(string)
					aside = append(aside, brokertest.DeadLetter{
						Outgoing: broker.Outgoing{Type: d.Type, ContentType: d.ContentType, Body: d.Body},
						Reason:   reason,
					})
				}
				return aside
			},
			Reopen: func(t testing.TB) broker.Broker {
				if err := b.Close(); err != nil {
					t.Fatal(err)
				}
				b = openTest(t, s.URL(), opts)
				return b
			},
			Stall: func(t testing.TB) func() {
				if err := s.Pause(); err != nil {
					t.Fatal(err)
				}
				resume := sync.OnceFunc(func() {
					if err := s.Resume(); err != nil {
						t.Error(err)
					}
				})
				t.Cleanup(resume)
				return resume
			},
		}
	}
}
