package main

import (
	"context"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"peerlink/broker"
	"peerlink/broker/embedded"
)

// publish STATE EXCHANGE KEY TYPE FILE puts a message into the store of the service that runs
// with this state folder, as it is when the service finds that the message cannot be sent: the
// body, the content of the file, need not be valid.
func publish(ts *testscript.TestScript, neg bool, args []string) {
	store, err := embedded.Open(filepath.Join(ts.MkAbs(args[0]), "messages.db"), embedded.Options{})
	ts.Check(err)
	defer store.Close()
	settled := make(chan error, 1)
	m := broker.Outgoing{Type: args[3], ContentType: "application/json", Body: []byte(ts.ReadFile(args[4]))}
	ts.Check(store.SendOrSetAside(context.Background(), embedded.Sending{
		Exchange: args[1], RoutingKey: args[2], Outgoing: m, Unroutable: func(*broker.Outgoing) *broker.Incoming { return nil },
	}, func(_ embedded.Outcome, err error) { settled <- err }))
	ts.Check(<-settled)
}

// waitaside STATE QUEUE ID… waits until exactly these messages of the queue are
// set aside.
func waitAside(ts *testscript.TestScript, neg bool, args []string) {
	store, err := embedded.Open(filepath.Join(ts.MkAbs(args[0]), "messages.db"), embedded.Options{})
	ts.Check(err)
	defer store.Close()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		var found []string
		for m, err := range store.List(context.Background(), args[1]) {
			ts.Check(err)
			found = append(found, m.ID)
		}
		if slices.Equal(found, args[2:]) {
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("%q are set aside in queue %s, want %q", found, args[1], args[2:])
		}
	}
}

// aside STATE QUEUE N makes a message store whose queue has N messages set aside.
func aside(ts *testscript.TestScript, neg bool, args []string) {
	n, err := strconv.Atoi(args[2])
	ts.Check(err)
	ts.Check(makeAside(ts.MkAbs(args[0]), args[1], n, "a reason", "{}"))
}

// makeAside makes a message store in a state folder. The queue has n messages set aside, and one that
// waits.
func makeAside(state, queue string, n int, reason, body string) error {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	store, err := embedded.Open(filepath.Join(state, "messages.db"), embedded.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	if err := store.Bind(ctx, broker.PeerBinding{PeerID: "x", Prefix: "x", Exchange: "x", Fanout: true, Queues: []string{queue}}); err != nil {
		return err
	}
	for range n + 1 {
		if err := store.PutAll(ctx, queue, []broker.Outgoing{{Type: "T", Body: []byte(body)}}); err != nil {
			return err
		}
	}
	c, err := store.Consume(ctx, queue)
	if err != nil {
		return err
	}
	defer c.Close()
	for taken := 0; taken < n; {
		messages, err := c.Next(ctx, n-taken)
		if err != nil {
			return err
		}
		for _, m := range messages {
			if err := c.DeadLetter(ctx, m.Tag, reason); err != nil {
				return err
			}
		}
		taken += len(messages)
	}
	return nil
}
