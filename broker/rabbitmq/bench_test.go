package rabbitmq

import (
	"bytes"
	"context"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// The benchmarks move messages of 500 bytes from one queue to another, with confirms and
// acknowledgements, and report messages per second: bare is the maximum of the library.
// Compare with
//
//	go test -run - -bench Move -benchtime 30000x ./broker/rabbitmq

const benchInbox = "bench_in"

var benchHeaders = []broker.Header{
	{Name: "message-type", Value: "PrepareTransfer"},
	{Name: "debtor-id", Value: int64(-4294967296)},
	{Name: "creditor-id", Value: int64(4294967296)},
	{Name: "coordinator-id", Value: int64(4294967296)},
	{Name: "coordinator-type", Value: "direct"},
}

// benchQueue returns a queue with n messages.
func benchQueue(b *testing.B, s *rabbittest.Server, n int) string {
	b.Helper()
	o := newTestClient(b, s)
	o.inbox(benchInbox)
	_, err := o.QueuePurge(benchInbox, false)
	o.check(err)
	queue, err := o.QueueDeclare("bench"+suffix(), true, false, false, false, nil)
	o.check(err)
	m := amqp.Publishing{DeliveryMode: amqp.Persistent, Type: "PrepareTransfer", ContentType: "application/json", Body: bytes.Repeat([]byte("x"), 500)}
	for n > 0 {
		k := min(n, 1000)
		batch := make([]amqp.Publishing, k)
		for i := range batch {
			batch[i] = m
		}
		o.check(o.send("", queue.Name, batch...))
		n -= k
	}
	b.Cleanup(func() {
		_, err := newTestClient(b, s).QueueDelete(queue.Name, false, false, false)
		o.check(err)
	})
	return queue.Name
}

func reportRate(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkMove(b *testing.B) {
	b.Run("bare", func(b *testing.B) {
		s := rabbittest.Get(b)
		queue := benchQueue(b, s, b.N)
		in, out := newTestClient(b, s), newTestClient(b, s)
		confirms := out.NotifyPublish(make(chan amqp.Confirmation, 4000))
		in.check(in.Qos(2000, 0, false))
		b.ReportAllocs()
		b.ResetTimer()
		deliveries, err := in.Channel.Consume(queue, "", false, false, false, false, nil)
		in.check(err)
		go func() {
			for range b.N {
				d := <-deliveries
				headers := make(amqp.Table, len(benchHeaders))
				for _, h := range benchHeaders {
					headers[h.Name] = h.Value
				}
				if err := out.Channel.Publish(benchInbox, "0.0.1", true, false, amqp.Publishing{
					Headers: headers, ContentType: d.ContentType, DeliveryMode: amqp.Persistent, Type: d.Type, AppId: appID, Body: d.Body,
				}); err != nil {
					b.Error(err)
				}
			}
		}()
		for tag := 0; tag < b.N; {
			tag = int((<-confirms).DeliveryTag)
			for len(confirms) > 0 {
				tag = int((<-confirms).DeliveryTag)
			}
			in.check(in.Ack(uint64(tag), true))
		}
		reportRate(b)
	})
	b.Run("broker", func(b *testing.B) {
		s := rabbittest.Get(b)
		queue := benchQueue(b, s, b.N)
		store := openTest(b, s.URL(), Options{})
		ctx := context.Background()
		// The connections are opened before the timer starts.
		for _, c := range []*connection{store.publishing, store.consuming} {
			if _, err := c.get(ctx); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportAllocs()
		b.ResetTimer()
		c, err := store.Consume(ctx, queue)
		if err != nil {
			b.Fatal(err)
		}
		done := make(chan error, 1)
		p, err := store.Publish(ctx, func(n uint64, err error) {
			if err == nil {
				err = c.Confirm(n) // tags count from 1, too
			}
			if err != nil || n == uint64(b.N) {
				done <- err
			}
		})
		if err != nil {
			b.Fatal(err)
		}
		for moved := 0; moved < b.N; {
			ds, err := c.Next(ctx, 256)
			if err != nil {
				b.Fatal(err)
			}
			for _, d := range ds {
				if err := p.Publish(ctx, &broker.Incoming{
					Exchange: benchInbox, RoutingKey: "0.0.1", Type: d.Type, ContentType: d.ContentType, Headers: benchHeaders, Body: d.Body,
				}); err != nil {
					b.Fatal(err)
				}
			}
			moved += len(ds)
		}
		if err := <-done; err != nil {
			b.Fatal(err)
		}
		reportRate(b)
		p.Close()
		c.Close()
	})
}
