package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// If a service is killed while it answers the messages queued for a deactivated peer, it
// continues after a restart: every message is answered.
func TestKillWhileDraining(t *testing.T) {
	t.Parallel()
	const count = 5000
	authority, agent := newServer(t, nodetype.AccountingAuthority), newServer(t, nodetype.CreditorsAgent)
	nodetest.Peer(t, authority.Node, agent.Node)
	far := newApplication(agent, authority)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	agent.start()
	defer func() { agent.kill() }()

	until(t, "the queue to the peer", func() error {
		if log := agent.log(); !strings.Contains(log, "peer is active") {
			return errors.New(log)
		}
		return nil
	})
	client, err := far.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for n := range count {
		typ, body := far.body(n)
		key := smp.OutgoingRoutingKey(nodetype.CreditorsAgent, nodetype.AccountingAuthority, int64(0x1234abcd_00_000000+n), 0)
		if err := client.Send(ctx, "creditors_out", key, typ, body, func(err error) { far.settle(n, err) }); err != nil {
			t.Fatal(err)
		}
	}
	for stored, _ := far.counts(); stored < count; stored, _ = far.counts() {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d messages are stored\n%s", stored, count, agent.log())
		}
		time.Sleep(time.Millisecond)
	}

	if _, err := agent.DeactivatePeer(ctx, authority.Identity().ID); err != nil {
		t.Fatal(err)
	}
	receiveCtx, stop := context.WithCancel(ctx)
	received := make(chan struct{})
	go func() { defer close(received); far.receive(receiveCtx) }()
	answers := func(want int) int {
		t.Helper()
		_, got := far.counts()
		for ; got < want; _, got = far.counts() {
			if ctx.Err() != nil {
				t.Fatalf("%d of %d messages are answered\n%s", got, count, agent.log())
			}
			time.Sleep(time.Millisecond)
		}
		return got
	}
	before := answers(1)
	agent.kill()
	agent.start()
	answers(count)
	t.Logf("killed after %d answers", before)
	stop()
	<-received
	if len(far.damaged) > 0 {
		t.Errorf("%d answers are wrong, for example %s", len(far.damaged), far.damaged[0])
	}
}
