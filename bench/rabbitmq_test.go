package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// rabbitCount is the number of messages that are moved through RabbitMQ in each
// part of a round.
const rabbitCount = 30_000

// BenchmarkRabbitMQPath measures the transfer of messages from a full queue of
// one node to the inbox of another, through two "peerlink serve" processes that
// use the same RabbitMQ. It alternates this with a bare loop that moves the same
// messages from the same queue to the same inbox with the same AMQP library but
// without a link: its throughput is the limit set by RabbitMQ and the library.
// An operation is one round of both; the benchmark reports the medians of all
// rounds. To run several rounds:
//
//	go test -run '^$' -bench RabbitMQPath -benchtime 5x ./bench
//
// Each service that sends, and the loop for the same queue, connect to the same node of RabbitMQ.
//
// Throughput is counted from the first message in the inbox to the last.
// Processor time is the total that a process has used from its start to its end.
func BenchmarkRabbitMQPath(b *testing.B) {
	newQueues(b, []string{rabbittest.Get(b).URL()}, 1, "").compare()
}

// BenchmarkRabbitMQCluster is like [BenchmarkRabbitMQPath], but on a cluster of three nodes
// with quorum queues. The sending node has one, two or three queues, and both nodes have the same
// number of services, which use different nodes of the cluster. There are as many bare loops, each of
// which uses one node of the cluster, too.
//
// The cluster runs on one half of the CPUs, and the services and the bare loops on the other
// half, as if the cluster had other machines. (A line says so where that is not possible.) Then
// the ratio shows whether the services use the cluster as well as the bare loop does, and not
// how much processor time they take from it. BenchmarkRabbitMQPath shows that.
//
// The benchmark is skipped unless PEERLINK_TEST_CLUSTER is set.
func BenchmarkRabbitMQCluster(b *testing.B) {
	if os.Getenv("PEERLINK_TEST_CLUSTER") == "" {
		b.Skip("skipped: a cluster of RabbitMQ (PEERLINK_TEST_CLUSTER=1)")
	}
	clients, nodes := halves(b)
	cluster := startClusterOn(b, nodes)
	keepTo(b, clients)
	var urls []string
	for _, s := range cluster.Nodes {
		urls = append(urls, s.URL())
	}
	for _, services := range []int{1, 2, 3} {
		b.Run(fmt.Sprint(services), func(b *testing.B) { newQueues(b, urls, services, "quorum").compare() })
	}
	b.Run("1, not connected to the leader", func(b *testing.B) {
		q := newQueues(b, urls, 1, "quorum") // the leader of a queue is where it was declared
		q.urls = urls[1:2]
		q.compare()
	})
}

// startClusterOn starts a cluster of three nodes that run only on the given CPUs.
func startClusterOn(b *testing.B, set cpus) *rabbittest.Cluster {
	b.Helper()
	// A process inherits the CPUs of the process that starts it.
	restore := restrict(b, set)
	defer restore()
	cluster, err := rabbittest.NewCluster(3)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = cluster.Remove() })
	if err := cluster.Start(); err != nil {
		b.Fatal(err)
	}
	return cluster
}

// BenchmarkRabbitMQFlood measures the time until a node with RabbitMQ confirms a message of
// an honest peer, alternately without a flood and while another peer floods the node on all
// its connections without a rate limit.
func BenchmarkRabbitMQFlood(b *testing.B) {
	f := newAttackedNodeOn(b, linktest.RabbitMQ, 0)
	enemy := startHelperProcess(b, "attackers", nil, f.attackSettings([]string{"flood"}, false))
	f.roundTrips() // warm-up
	var free, flooded []float64
	var counts attackCounts
	b.ResetTimer()
	for range b.N * attackRounds {
		free = append(free, f.roundTrips()...)
		enemy.command("begin", new(any))
		flooded = append(flooded, f.roundTrips()...)
		pressing := f.connectionsOf("flood")
		var list []attackCount
		enemy.command("end", &list)
		counts.add(list, pressing)
	}
	b.StopTimer()
	counts.report(b)
	b.ReportMetric(median(free), "free-ms")
	b.ReportMetric(slices.Max(free), "free-ms-max")
	b.ReportMetric(median(flooded), "ms")
	b.ReportMetric(slices.Max(flooded), "ms-max")
	b.ReportMetric(0, "ns/op")
}

// compare moves the messages alternately with bare loops and with services, b.N times each,
// and reports the medians.
func (q *queues) compare() {
	b := q.b
	binary := build(b)
	var bare, linked, ratio, sending, receiving []float64
	for range b.N {
		q.fill(rabbitCount)
		var loops []func()
		for i := range q.queues {
			loops = append(loops, q.move(i, rabbitCount/len(q.queues)))
		}
		limit := q.arrivalRate(rabbitCount)
		for _, wait := range loops {
			wait()
		}

		q.fill(rabbitCount)
		var receivers, senders []*process
		for i := range q.queues {
			receivers = append(receivers, serve(b, binary, q.to, q.receiverAddrs[i], []string{q.urlOf(i)}, q.queueType))
			senders = append(senders, serve(b, binary, q.from, "127.0.0.1:0", []string{q.urlOf(i)}, q.queueType))
		}
		rate := q.arrivalRate(rabbitCount)
		sending = append(sending, stopAll(senders)/rabbitCount)
		receiving = append(receiving, stopAll(receivers)/rabbitCount)
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

// stopAll ends the services, and returns the total of processor time that they have used, in microseconds.
func stopAll(services []*process) (used float64) {
	for _, s := range services {
		used += s.stop()
	}
	return used
}

func median(list []float64) float64 {
	slices.Sort(list)
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}

// queues are the sending queues of a creditors agent and the inbox of an accounting
// authority, its peer, in one RabbitMQ.
type queues struct {
	b         *testing.B
	urls      []string // of the nodes of RabbitMQ
	queueType string   // as for --queue-type; "": the default
	from, to  *linktest.Node
	queues    []string
	inbox     string

	receiverAddrs []string // where the services of to listen
	conn          *amqp.Connection
	ch            *amqp.Channel
}

func newQueues(b *testing.B, urls []string, number int, queueType string) *queues {
	b.Helper()
	q := &queues{b: b, urls: urls, queueType: queueType}
	elsewhere := func(testing.TB, *linktest.Node) {} // no broker here: the services run in other processes
	q.to = linktest.NewOn(b, nodetype.AccountingAuthority, elsewhere)
	q.from = linktest.NewOn(b, nodetype.CreditorsAgent, elsewhere)
	nodetest.Peer(b, q.to.Node, q.from.Node)
	q.check(q.from.SetQueues(b.Context(), q.to.Identity().ID, number))
	var err error
	q.conn, err = amqp.Dial(urls[0])
	q.check(err)
	b.Cleanup(func() { q.conn.Close() })
	q.ch = q.channel()
	q.inbox = q.to.Identity().Type.Inbox()
	q.declareInbox()
	q.declareQueues(number)
	q.receiverAddrs = []string{q.to.Addr}
	if number > 1 {
		q.balance(number)
	}
	return q
}

// balance forwards the connections of peers to the services of to in turn, as a load balancer does.
func (q *queues) balance(services int) {
	q.b.Helper()
	listener, err := net.Listen("tcp", q.to.Addr)
	q.check(err)
	q.b.Cleanup(func() { listener.Close() })
	q.receiverAddrs = nil
	for range services {
		q.receiverAddrs = append(q.receiverAddrs, linktest.FreeAddress(q.b))
	}
	go func() {
		for n := 0; ; n++ {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go forward(conn, q.receiverAddrs[n%services])
		}
	}()
}

// forward copies what is sent on a connection to a server, and vice versa, until one of them ends it.
func forward(client net.Conn, addr string) {
	defer client.Close()
	server, err := net.Dial("tcp", addr)
	if err != nil {
		return // the service does not listen yet
	}
	defer server.Close()
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, client)
	}()
	_, _ = io.Copy(client, server)
}

func (q *queues) declareInbox() {
	q.b.Helper()
	var args amqp.Table
	if q.queueType != "" {
		args = amqp.Table{"x-queue-type": q.queueType}
	}
	q.check(q.ch.ExchangeDeclare(q.inbox, "topic", true, false, false, false, nil))
	_, err := q.ch.QueueDeclare(q.inbox, true, false, false, false, args)
	q.check(err)
	q.check(q.ch.QueueBind(q.inbox, "#", q.inbox, false, nil))
}

// declareQueues declares the peer's queues as a service does.
func (q *queues) declareQueues(number int) {
	q.b.Helper()
	r, err := rabbitmq.Open(q.urls[0], rabbitmq.Options{QueueType: rabbitmq.QueueType(q.queueType)})
	q.check(err)
	defer r.Close()
	peer, err := q.from.Peer(q.to.Identity().ID)
	q.check(err)
	view, err := link.View(q.from.Dir, peer)
	q.check(err)
	queue, err := link.BindingOf(q.from.Dir, peer, view, link.DefaultQueuePattern)
	q.check(err)
	q.queues = queue.Queues
	q.check(r.Bind(q.b.Context(), queue))
}

func (q *queues) check(err error) {
	q.b.Helper()
	if err != nil {
		q.b.Fatal(err)
	}
}

// urlOf returns the URL of the node of RabbitMQ from which a queue is consumed.
func (q *queues) urlOf(queue int) string { return q.urls[queue%len(q.urls)] }

func (q *queues) channel() *amqp.Channel {
	q.b.Helper()
	ch, err := q.conn.Channel()
	q.check(err)
	return ch
}

// fill empties the inbox, and puts count messages of about 500 bytes into the sending queues.
func (q *queues) fill(count int) {
	q.b.Helper()
	_, err := q.ch.QueuePurge(q.inbox, false)
	q.check(err)
	ch := q.channel()
	defer ch.Close()
	q.check(ch.Confirm(false))
	confirms := ch.NotifyPublish(make(chan amqp.Confirmation, count))
	for n := range count {
		q.check(ch.PublishWithContext(context.Background(), "", q.queues[n%len(q.queues)], true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Type: "PrepareTransfer", ContentType: "application/json", Body: prepareTransfer(n),
		}))
	}
	for range count {
		if c := <-confirms; !c.Ack {
			q.b.Fatal("RabbitMQ has rejected a message")
		}
	}
}

// The IDs in the messages: of the creditor, and of the debtor in the first message.
const (
	creditor    = 0x000001_01_00000000
	firstDebtor = 0x1234abcd_00_000000
)

// prepareTransfer returns the body of the n-th message, of about 500 bytes.
func prepareTransfer(n int) []byte {
	m := fmt.Sprintf(`{"type": "PrepareTransfer", "debtor_id": %d, "creditor_id": %d, "min_locked_amount": 1000, `+
		`"max_locked_amount": 2000, "recipient": "%s", "final_interest_rate_ts": "9999-12-31T23:59:59+00:00", `+
		`"max_commit_delay": 100000, "coordinator_type": "direct", "coordinator_id": %d, "coordinator_request_id": %d, `+
		`"ts": "2026-01-01T12:00:00+00:00"}`, int64(firstDebtor+n), creditor, strings.Repeat("R", 100), creditor, n)
	return []byte(m)
}

// move starts the bare loop: it takes count messages from a queue, publishes them to the
// inbox as the link does, and acknowledges those that RabbitMQ has confirmed. The returned
// function waits until all of them are acknowledged.
func (q *queues) move(queue, count int) (wait func()) {
	q.b.Helper()
	connect := func() (*amqp.Connection, *amqp.Channel) {
		conn, err := amqp.Dial(q.urlOf(queue))
		q.check(err)
		ch, err := conn.Channel()
		q.check(err)
		return conn, ch
	}
	inConn, in := connect()
	outConn, out := connect()
	const inFlight = 2000
	q.check(in.Qos(inFlight, 0, false))
	q.check(out.Confirm(false))
	confirms := out.NotifyPublish(make(chan amqp.Confirmation, 2*inFlight))
	deliveries, err := in.Consume(q.queues[queue], "", false, false, false, false, nil)
	q.check(err)
	published, acked := make(chan error, 1), make(chan error, 1)
	go func() {
		for n := range count {
			d, ok := <-deliveries
			if !ok {
				published <- amqp.ErrClosed
				return
			}
			// As many different keys as the link has: RabbitMQ routes messages with the same key faster.
			debtor := int64(firstDebtor + n)
			key := smp.RoutingKey(debtor, creditor)
			headers := amqp.Table{
				"message-type": d.Type, "debtor-id": debtor, "creditor-id": int64(creditor), "coordinator-id": int64(n), "coordinator-type": "direct",
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

// arrivalRate waits until count messages are in the inbox, and returns the number of
// messages per second that arrived there.
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

// checkEmpty fails the benchmark if a sending queue is not empty: RabbitMQ puts messages
// back into their queue if they have not been acknowledged before their consumer ends.
func (q *queues) checkEmpty() {
	q.b.Helper()
	for _, queue := range q.queues {
		if n := q.length(queue); n > 0 {
			q.b.Fatalf("%d messages are left in the queue %s", n, queue)
		}
	}
}

// length returns the number of messages in a queue that have not been delivered to a
// consumer.
func (q *queues) length(queue string) int {
	q.b.Helper()
	state, err := q.ch.QueueDeclarePassive(queue, true, false, false, false, nil)
	q.check(err)
	return state.Messages
}
