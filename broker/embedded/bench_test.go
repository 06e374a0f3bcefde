package embedded

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"testing"

	"peerlink/broker"
)

// The benchmarks move messages of 500 bytes, and report messages per second.

func benchMessage() *broker.Incoming {
	return &broker.Incoming{
		Peer:        "1234abcd",
		Exchange:    "accounts_in",
		RoutingKey:  "0.0.0.0.1.0.0.0.0.1.0.0.0.1.0.0.0.0.1.1.0.1.0.0",
		Type:        "PrepareTransfer",
		ContentType: "application/json",
		Headers: []broker.Header{
			{Name: "message-type", Value: "PrepareTransfer"},
			{Name: "debtor-id", Value: int64(-4294967296)},
			{Name: "creditor-id", Value: int64(4294967296)},
			{Name: "coordinator-id", Value: int64(4294967296)},
			{Name: "coordinator-type", Value: "direct"},
		},
		Body: bytes.Repeat([]byte("x"), 500),
	}
}

// publishN publishes n messages and waits until they are confirmed.
func publishN(tb testing.TB, s *Store, n int) {
	done := make(chan error, 1)
	p, err := s.Publish(context.Background(), func(confirmed uint64, err error) {
		if err != nil || confirmed == uint64(n) {
			done <- err
		}
	})
	if err != nil {
		tb.Error(err)
		return
	}
	defer p.Close()
	m := benchMessage()
	for range n {
		if err := p.Publish(context.Background(), m); err != nil {
			tb.Error(err)
			return
		}
	}
	if err := <-done; err != nil {
		tb.Error(err)
	}
}

func reportRate(b *testing.B) {
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}

func BenchmarkPublish(b *testing.B) {
	for _, publishers := range []int{1, 8} {
		b.Run(fmt.Sprintf("publishers=%d", publishers), func(b *testing.B) {
			s := openTest(b, Options{})
			var wg sync.WaitGroup
			b.ReportAllocs()
			b.ResetTimer()
			for i := range publishers {
				n := b.N / publishers
				if i == 0 {
					n += b.N % publishers
				}
				if n > 0 {
					wg.Go(func() { publishN(b, s, n) })
				}
			}
			wg.Wait()
			reportRate(b)
		})
	}
}

// consumeN consumes n messages of a queue, 1,000 at a time, and confirms them.
func consumeN(tb testing.TB, s *Store, queue string, n int) {
	ctx := context.Background()
	c, err := s.Consume(ctx, queue)
	if err != nil {
		tb.Error(err)
		return
	}
	defer c.Close()
	for n > 0 {
		ds, err := c.Next(ctx, min(n, 1000))
		if err != nil {
			tb.Error(err)
			return
		}
		n -= len(ds)
		if err := c.Confirm(ds[len(ds)-1].Tag); err != nil {
			tb.Error(err)
			return
		}
	}
}

func putN(tb testing.TB, s *Store, queue string, n int) {
	m := benchMessage()
	batch := make([]broker.Outgoing, 1000)
	for i := range batch {
		batch[i] = broker.Outgoing{Type: m.Type, ContentType: m.ContentType, Body: m.Body}
	}
	for n > 0 {
		k := min(n, len(batch))
		if err := s.PutAll(context.Background(), queue, batch[:k]); err != nil {
			tb.Error(err)
			return
		}
		n -= k
	}
}

func BenchmarkPut(b *testing.B) {
	s := openTest(b, Options{})
	declareTest(b, s, "q")
	b.ReportAllocs()
	b.ResetTimer()
	putN(b, s, "q", b.N)
	reportRate(b)
}

func BenchmarkConsume(b *testing.B) {
	s := openTest(b, Options{})
	declareTest(b, s, "q")
	putN(b, s, "q", b.N)
	b.ReportAllocs()
	b.ResetTimer()
	consumeN(b, s, "q", b.N)
	reportRate(b)
}

func BenchmarkSubscribe(b *testing.B) {
	s := openTest(b, Options{})
	publishN(b, s, b.N)
	b.ReportAllocs()
	b.ResetTimer()
	subscribeN(b, s, b.N)
	reportRate(b)
}

func subscribeN(tb testing.TB, s *Store, n int) {
	sub := s.Subscribe("accounts_in")
	defer sub.Close()
	for n > 0 {
		ms, err := sub.Next(context.Background(), min(n, 1000))
		if err != nil {
			tb.Error(err)
			return
		}
		n -= len(ms)
		seqs := make([]uint64, len(ms))
		for i, m := range ms {
			seqs[i] = m.Seq
		}
		if err := sub.Ack(seqs, nil); err != nil {
			tb.Error(err)
			return
		}
	}
}

// BenchmarkAtOnce simulates a busy node: b.N messages are received and b.N sent,
// while applications consume the received ones and send the others.
func BenchmarkAtOnce(b *testing.B) {
	s := openTest(b, Options{})
	declareTest(b, s, "q")
	b.ResetTimer()
	var wg sync.WaitGroup
	wg.Go(func() { publishN(b, s, b.N) })
	wg.Go(func() { subscribeN(b, s, b.N) })
	wg.Go(func() { putN(b, s, "q", b.N) })
	wg.Go(func() { consumeN(b, s, "q", b.N) })
	wg.Wait()
	b.ReportMetric(2*float64(b.N)/b.Elapsed().Seconds(), "msg/s")
}
