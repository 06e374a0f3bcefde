// Package bench measures the throughput of the whole path of a message, and of
// its single steps, which set the limits of the whole. Run all benchmarks
// together, and compare only results of the same run.
//
//	go test -run '^$' -bench . ./bench
package bench

import (
	"context"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/link/linktest"
	"peerlink/node/nodetype"
)

const batch = 1000

// messages makes a batch of messages of a typical size.
func messages(b *testing.B, from, to *linktest.Node) []broker.Outgoing {
	b.Helper()
	list := make([]broker.Outgoing, batch)
	for i := range list {
		list[i] = linktest.Message(b, from, to, i)
	}
	return list
}

// rate reports the number of messages per second as a metric of b.
func rate(b *testing.B, n int) {
	b.ReportMetric(float64(n)/b.Elapsed().Seconds(), "msg/s")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkEmbeddedPath measures the transfer of messages from the queue of one
// node to the inbox of another over TLS. Both nodes and their stores run in this
// process. An operation is a batch of 1,000 messages.
func BenchmarkEmbeddedPath(b *testing.B) {
	authority, agent := linktest.Pair(b, nodetype.CreditorsAgent)
	list := messages(b, authority, agent)
	inbox := agent.Identity().Type.Inbox()
	authority.Put(agent, list[:1]...) // its arrival shows that the link is up
	waitTotal(b, agent.Store, inbox, 1)
	b.ResetTimer()
	for range b.N {
		if err := authority.Store.PutAll(context.Background(), linktest.QueueTo(agent), list); err != nil {
			b.Fatal(err)
		}
	}
	waitTotal(b, agent.Store, inbox, uint64(1+b.N*batch))
	b.StopTimer()
	rate(b, b.N*batch)
}

// BenchmarkStorePut measures how fast messages are stored on disk, which limits
// the receiving side.
func BenchmarkStorePut(b *testing.B) {
	store := openStore(b)
	list := make([]*broker.Incoming, batch)
	authority, agent := linktest.New(b, nodetype.AccountingAuthority), linktest.New(b, nodetype.CreditorsAgent)
	for i, m := range messages(b, authority, agent) {
		list[i] = &broker.Incoming{Exchange: "creditors_in", RoutingKey: "0.1", Type: m.Type, ContentType: m.ContentType, Body: m.Body}
	}
	stored := make(chan uint64, 1)
	total := uint64(b.N * batch)
	pub, err := store.Publish(context.Background(), func(n uint64, err error) {
		if err != nil {
			b.Error(err)
		}
		if n == total {
			stored <- n
		}
	})
	if err != nil {
		b.Fatal(err)
	}
	defer pub.Close()
	b.ResetTimer()
	for range b.N {
		for _, m := range list {
			if err := pub.Publish(context.Background(), m); err != nil {
				b.Fatal(err)
			}
		}
	}
	<-stored
	b.StopTimer()
	rate(b, b.N*batch)
}

// BenchmarkStoreTake measures how fast messages are taken out of a store and
// removed from it, which limits the sending side.
func BenchmarkStoreTake(b *testing.B) {
	store := openStore(b)
	ctx := context.Background()
	q := broker.PeerBinding{PeerID: "x", Prefix: "aa", Exchange: "to_creditors", BindingKey: "#", Queues: []string{"q"}}
	if err := store.Bind(ctx, q); err != nil {
		b.Fatal(err)
	}
	authority, agent := linktest.New(b, nodetype.AccountingAuthority), linktest.New(b, nodetype.CreditorsAgent)
	list := messages(b, authority, agent)
	for range b.N {
		if err := store.PutAll(ctx, "q", list); err != nil {
			b.Fatal(err)
		}
	}
	consumer, err := store.Consume(ctx, "q")
	if err != nil {
		b.Fatal(err)
	}
	b.ResetTimer()
	for n := 0; n < b.N*batch; {
		got, err := consumer.Next(ctx, 256)
		if err != nil {
			b.Fatal(err)
		}
		n += len(got)
		if err := consumer.Confirm(got[len(got)-1].Tag); err != nil {
			b.Fatal(err)
		}
	}
	if err := consumer.Close(); err != nil {
		b.Fatal(err)
	}
	b.StopTimer()
	rate(b, b.N*batch)
}

func openStore(b *testing.B) *embedded.Store {
	b.Helper()
	store, err := embedded.Open(filepath.Join(b.TempDir(), "messages.db"), embedded.Options{})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { store.Close() })
	return store
}

// waitTotal waits until at least total messages have been put into the inbox
// in total, including messages that have been taken out of it.
func waitTotal(b *testing.B, store *embedded.Store, inbox string, total uint64) {
	b.Helper()
	deadline := time.Now().Add(time.Minute + time.Duration(total)*time.Millisecond)
	for {
		stats, err := store.Stats(context.Background())
		if err != nil {
			b.Fatal(err)
		}
		for _, q := range stats.Queues {
			if q.Name == inbox && q.Total >= total {
				return
			}
		}
		if time.Now().After(deadline) {
			b.Fatal(errors.New("messages do not arrive"))
		}
		time.Sleep(2 * time.Millisecond)
	}
}
