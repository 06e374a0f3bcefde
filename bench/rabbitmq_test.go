package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// rabbitCount is how many messages go through RabbitMQ in each round.
const rabbitCount = 30_000

// BenchmarkRabbitMQPath carries messages from a full queue of one node to the
// inbox of another, through two "peerlink serve" processes and one RabbitMQ
// for both. In turn with that, the same messages go from the same queue to the
// same inbox in a bare loop with the same AMQP library: that is the limit which
// RabbitMQ and the library set, without a link in between. An operation is a
// round of both; the medians are reported. Several rounds:
//
//	go test -run '^$' -bench RabbitMQPath -benchtime 5x ./bench
//
// Throughput is counted from the first message in the inbox to the last.
// Processor time is all that a process has used, from its start to its end.
func BenchmarkRabbitMQPath(b *testing.B) {
	q := newQueues(b)
	binary := build(b)
	var bare, linked, ratio, sending, receiving []float64
	for range b.N {
		q.fill(rabbitCount)
		wait := q.move(rabbitCount)
		limit := q.arrivalRate(rabbitCount)
		wait()

		q.fill(rabbitCount)
		receiver := serve(b, binary, q.to, q.url)
		sender := serve(b, binary, q.from, q.url)
		rate := q.arrivalRate(rabbitCount)
		sending = append(sending, sender.stop()/rabbitCount)
		receiving = append(receiving, receiver.stop()/rabbitCount)
		q.checkEmpty()
		bare, linked, ratio = append(bare, limit), append(linked, rate), append(ratio, rate/limit)
	}
	b.ReportMetric(median(linked), "msg/s")
	b.ReportMetric(median(bare), "bare-msg/s")
	b.ReportMetric(median(ratio), "of-bare")
	b.ReportMetric(median(sending), "sender-µs/msg")
	b.ReportMetric(median(receiving), "receiver-µs/msg")
	b.ReportMetric(0, "ns/op")
}

func median(list []float64) float64 {
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}

// queues are where the messages of a creditors agent wait for an accounting
// authority, and where they arrive, in one RabbitMQ.
type queues struct {
	b            *testing.B
	url          string
	from, to     *linktest.Node
	queue, inbox string
	conn         *amqp.Connection
	ch           *amqp.Channel
}

func newQueues(b *testing.B) *queues {
	b.Helper()
	q := &queues{b: b, url: rabbittest.Get(b).URL()}
	q.to = linktest.NewOn(b, nodetype.AccountingAuthority, linktest.RabbitMQ)
	q.from = linktest.NewOn(b, nodetype.CreditorsAgent, linktest.RabbitMQ)
	nodetest.Peer(b, q.to.Node, q.from.Node)
	q.queue, q.inbox = linktest.QueueTo(q.to), q.to.Identity().Type.Inbox()
	var err error
	q.conn, err = amqp.Dial(q.url)
	q.check(err)
	b.Cleanup(func() { q.conn.Close() })
	q.ch = q.channel()
	_, err = q.ch.QueueDeclare(q.queue, true, false, false, false, amqp.Table{
		"x-dead-letter-exchange": "", "x-dead-letter-routing-key": q.queue + ".XQ",
	})
	q.check(err)
	return q
}

func (q *queues) check(err error) {
	q.b.Helper()
	if err != nil {
		q.b.Fatal(err)
	}
}

func (q *queues) channel() *amqp.Channel {
	q.b.Helper()
	ch, err := q.conn.Channel()
	q.check(err)
	return ch
}

// fill empties the inbox, and puts so many messages of 500 bytes into the queue.
func (q *queues) fill(count int) {
	q.b.Helper()
	_, err := q.ch.QueuePurge(q.inbox, false)
	q.check(err)
	ch := q.channel()
	defer ch.Close()
	q.check(ch.Confirm(false))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, count))
	for n := range count {
		q.check(ch.PublishWithContext(context.Background(), "", q.queue, true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Type: "PrepareTransfer", ContentType: "application/json", Body: prepareTransfer(n),
		}))
	}
	for range count {
		if c := <-confirms; !c.Ack {
			q.b.Fatal("RabbitMQ has not taken a message")
		}
	}
}

// prepareTransfer makes the n-th message, of about 500 bytes.
func prepareTransfer(n int) []byte {
	const creditor = 0x000001_01_00000000
	m := fmt.Sprintf(`{"type": "PrepareTransfer", "debtor_id": %d, "creditor_id": %d, "min_locked_amount": 1000, `+
		`"max_locked_amount": 2000, "recipient": "%s", "final_interest_rate_ts": "9999-12-31T23:59:59+00:00", `+
		`"max_commit_delay": 100000, "coordinator_type": "direct", "coordinator_id": %d, "coordinator_request_id": %d, `+
		`"ts": "2026-01-01T12:00:00+00:00"}`, int64(0x1234abcd_00_000000+n), creditor, strings.Repeat("R", 100), creditor, n)
	return []byte(m)
}

// move is the bare loop: it takes so many messages from the queue, publishes them
// to the inbox as the link does, and acknowledges what has been confirmed. wait
// returns when all is done.
func (q *queues) move(count int) (wait func()) {
	q.b.Helper()
	connect := func() (*amqp.Connection, *amqp.Channel) {
		conn, err := amqp.Dial(q.url)
		q.check(err)
		ch, err := conn.Channel()
		q.check(err)
		return conn, ch
	}
	inConn, in := connect()
	outConn, out := connect()
	const inFlight = 2000
	key := smp.RoutingKey(1, 2) // as long as all are: its length matters to RabbitMQ
	q.check(in.Qos(inFlight, 0, false))
	q.check(out.Confirm(false))
	confirms := out.NotifyPublish(make(chan amqp.Confirmation, 2*inFlight))
	deliveries, err := in.Consume(q.queue, "", false, false, false, false, nil)
	q.check(err)
	published, acked := make(chan error, 1), make(chan error, 1)
	go func() {
		for range count {
			d, ok := <-deliveries
			if !ok {
				published <- amqp.ErrClosed
				return
			}
			headers := amqp.Table{
				"message-type": d.Type, "debtor-id": int64(1), "creditor-id": int64(1), "coordinator-id": int64(1), "coordinator-type": "direct",
			}
			err := out.PublishWithContext(context.Background(), q.inbox, key, true, false, amqp.Publishing{
				Headers: headers, DeliveryMode: amqp.Persistent, Type: d.Type, ContentType: d.ContentType, AppId: "swpt_stomp", Body: d.Body,
			})
			if err != nil {
				published <- err
				return
			}
		}
		published <- nil
	}()
	go func() {
		for tag := uint64(0); tag < uint64(count); {
			tag = (<-confirms).DeliveryTag
			for len(confirms) > 0 {
				tag = (<-confirms).DeliveryTag
			}
			if err := in.Ack(tag, true); err != nil {
				acked <- err
				return
			}
		}
		acked <- nil
	}()
	return func() {
		q.b.Helper()
		q.check(errors.Join(<-published, <-acked, inConn.Close(), outConn.Close()))
	}
}

// arrivalRate waits until so many messages are in the inbox, and returns how
// many came in a second.
func (q *queues) arrivalRate(count int) float64 {
	q.b.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	var start time.Time
	before := 0 // at the start
	for {
		n := q.length(q.inbox)
		now := time.Now()
		switch {
		case n > count:
			q.b.Fatalf("%d messages have arrived, expected %d", n, count)
		case n == count && before > 0:
			return float64(n-before) / now.Sub(start).Seconds()
		case n > 0 && before == 0:
			start, before = now, n
		case now.After(deadline):
			q.b.Fatalf("%d of %d messages have arrived", n, count)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// checkEmpty fails if messages have come back into the queue, because they were
// not confirmed before their consumer ended.
func (q *queues) checkEmpty() {
	q.b.Helper()
	if n := q.length(q.queue); n > 0 {
		q.b.Fatalf("%d messages are left in the queue", n)
	}
}

// length returns how many messages of a queue no consumer has.
func (q *queues) length(queue string) int {
	q.b.Helper()
	state, err := q.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	q.check(err)
	return state.Messages
}
