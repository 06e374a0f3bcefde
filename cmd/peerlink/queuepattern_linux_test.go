package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"peerlink/broker/rabbitmq/rabbittest"
)

// If --queue-pattern is changed while the peer is unreachable, all messages arrive: those
// that wait in the queues of earlier patterns, and those that are sent later.
func TestQueuePatternChanges(t *testing.T) {
	rabbit := rabbittest.Get(t)
	at, far, conn := rabbitPair(t, rabbit)
	authority, agent := at.node, far.node
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	const each = 30
	for i, run := range []struct{ pattern, bound string }{
		{"first-{node-id}-{n}", "peer is active"},
		{"second-{node-id}-{n}", "messages wait in queues of an earlier --queue-pattern"},
	} {
		if i > 0 {
			agent.terminate()
		}
		agent.broker = []string{"--broker", rabbit.URL(), "--queue-pattern", run.pattern}
		agent.start()
		until(t, run.bound, func() error {
			if log := agent.log(); !strings.Contains(log, run.bound) {
				return errors.New(log)
			}
			return nil
		})
		publishFrom(t, conn, far, i*each, each)
	}
	defer agent.kill()
	authority.start()
	defer authority.kill()
	go at.receive(ctx)
	for _, got := at.counts(); got < 2*each; _, got = at.counts() {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d messages have arrived\n%s\n%s", got, 2*each, authority.log(), agent.log())
		}
		time.Sleep(5 * time.Millisecond)
	}
}
