package local

import (
	"bytes"
	"sync"
	"testing"
)

// BenchmarkSend measures one application that sends messages of 500 bytes, until all
// are durable and confirmed.
func BenchmarkSend(b *testing.B) {
	h := newHouse(b, nil)
	c := h.client()
	body := bytes.Repeat([]byte("x"), 500)
	var confirmed sync.WaitGroup
	for b.Loop() {
		confirmed.Add(1)
		err := c.Send(b.Context(), "to_creditors", "00.00.01.05.00.00.00.07", "AccountUpdate", body, func(err error) {
			if err != nil {
				b.Error(err)
			}
			confirmed.Done()
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	confirmed.Wait()
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
}

// BenchmarkReceive measures one application that receives messages from the inbox and
// acknowledges each, until all removals are durable.
func BenchmarkReceive(b *testing.B) {
	for _, bench := range []struct {
		name     string
		ack      AckMode
		prefetch int
	}{
		{"auto/100", AckAuto, 100},
		{"auto/1000", AckAuto, 1000},
		{"client/1000", AckClient, 1000},
		{"individual/1", AckIndividual, 1},
		{"individual/100", AckIndividual, 100},
		{"individual/1000", AckIndividual, 1000},
	} {
		b.Run(bench.name, func(b *testing.B) {
			h := newHouse(b, nil)
			const filled = 20_000
			c := h.client()
			sub, err := c.Subscribe(b.Context(), "/queue/accounts_in", bench.prefetch, bench.ack)
			if err != nil {
				b.Fatal(err)
			}
			left := 0
			for b.Loop() {
				if left == 0 {
					b.StopTimer()
					h.publish(1, filled)
					left = filled
					b.StartTimer()
				}
				left--
				m, err := sub.Next(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				if bench.ack != AckAuto {
					if err := sub.Ack(m); err != nil {
						b.Fatal(err)
					}
				}
			}
			if err := c.Disconnect(b.Context()); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "messages/s")
		})
	}
}
