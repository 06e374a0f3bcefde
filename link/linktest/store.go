package linktest

import (
	"context"
	"path/filepath"
	"testing"

	"peerlink/broker"
	"peerlink/broker/embedded"
)

// A Kind gives a new node the broker on which its service will run.
type Kind func(testing.TB, *Node)

// Embedded is the [Kind] of nodes with a store of their own, in [Node.Store].
func Embedded(t testing.TB, n *Node) {
	t.Helper()
	EmbeddedWith(embedded.Options{})(t, n)
}

// EmbeddedWith is [Embedded] with other options than the usual ones. The logger
// is always the node's.
func EmbeddedWith(o embedded.Options) Kind {
	return func(t testing.TB, n *Node) {
		t.Helper()
		o := o
		o.Logger = n.Log.Logger()
		var err error
		if n.Store, err = embedded.Open(filepath.Join(t.TempDir(), "messages.db"), o); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Store.Close() })
		n.Config.Broker, n.apps = n.Store, storeApps{n.Store}
	}
}

// apps stands for a node's applications.
type apps interface {
	// put sends messages into the queue, or the queues, to a peer.
	put(ctx context.Context, to *Node, messages []broker.Outgoing) error
	// take gives each message of the inbox to do, and removes it, until do
	// wants no more.
	take(ctx context.Context, inbox string, do func(broker.Incoming) (more bool)) error
	// left returns what waits in a queue, and why messages were set aside.
	left(ctx context.Context, queue string) (waiting int, aside []string, err error)
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

func (a storeApps) left(ctx context.Context, queue string) (waiting int, aside []string, err error) {
	const many = 1000
	messages, err := a.Peek(ctx, queue, many)
	if err != nil {
		return 0, nil, err
	}
	for m, err := range a.List(ctx, queue) {
		if err != nil {
			return 0, nil, err
		}
		aside = append(aside, m.Reason)
	}
	return len(messages), aside, nil
}
