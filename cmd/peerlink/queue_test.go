package main

import (
	"context"
	"path/filepath"
	"slices"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"peerlink/broker/embedded"
	"peerlink/local"
)

// publish STATE EXCHANGE KEY TYPE FILE sends a message as an application does,
// through the local door of the service that runs with this state folder. The body
// of the message is the content of the file, which need not be valid.
func publish(ts *testscript.TestScript, neg bool, args []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := local.Dial(ctx, ts.MkAbs(args[0]))
	ts.Check(err)
	defer c.Close()
	settled := make(chan error, 1)
	ts.Check(c.Send(ctx, args[1], args[2], args[3], []byte(ts.ReadFile(args[4])), func(err error) { settled <- err }))
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
