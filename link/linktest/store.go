package linktest

import (
	"context"
	"path/filepath"
	"testing"

	"peerlink/broker"
	"peerlink/broker/embedded"
)

// A BrokerSetup gives a new node the broker on which its service will run.
type BrokerSetup func(testing.TB, *Node)

// Embedded gives a node its own embedded store, in [Node.Store].
func Embedded(t testing.TB, n *Node) {
	t.Helper()
	EmbeddedWith(embedded.Options{})(t, n)
}

// EmbeddedWith is [Embedded] with other options. The logger is always that of the node.
func EmbeddedWith(o embedded.Options) BrokerSetup {
	return func(t testing.TB, n *Node) {
		t.Helper()
		o := o
		o.Logger = n.Log.Logger()
		n.StorePath = filepath.Join(t.TempDir(), "messages.db")
		var err error
		if n.Store, err = embedded.Open(n.StorePath, o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Store.Close() })
		n.Config.Broker, n.apps = n.Store, storeApps{n.Store}
	}
}

// apps stands for the applications of a node.
type apps interface {
	// put puts messages into the queues that lead to a peer.
	put(ctx context.Context, to *Node, messages []broker.Outgoing) error
	// take calls do with each message of the inbox, and removes the message, until do
	// returns false.
	take(ctx context.Context, inbox string, do func(broker.Incoming) (more bool)) error
	// remaining returns the number of messages in a queue, and the reasons of its dead
	// letters.
	remaining(ctx context.Context, queue string) (waiting int, reasons []string, err error)
}

// storeApps are applications on an embedded store.
type storeApps struct{ *embedded.Store }

func (a storeApps) put(ctx context.Context, to *Node, messages []broker.Outgoing) error {
	return a.PutAll(ctx, QueueTo(to), messages)
}

func (a storeApps) take(ctx context.Context, inbox string, do func(broker.Incoming) bool) error {
	sub := a.Subscribe(inbox)
	defer sub.Close()
	for more := true; more; {
		batch, err := sub.Next(ctx, 1000)
		if err != nil {
			return err
		}
		var seqs []uint64
		for _, m := range batch {
			seqs = append(seqs, m.Seq)
			more = do(m.Incoming)
		}
		if err := sub.Ack(seqs, nil); err != nil {
			return err
		}
	}
	return nil
}

func (a storeApps) remaining(ctx context.Context, queue string) (waiting int, reasons []string, err error) {
	const many = 1000
	messages, err := a.Peek(ctx, queue, many)
	if err != nil {
		return 0, nil, err
	}
	for m, err := range a.List(ctx, queue) {
		if err != nil {
			return 0, nil, err
		}
		reasons = append(reasons, m.Reason)
	}
	return len(messages), reasons, nil
}
