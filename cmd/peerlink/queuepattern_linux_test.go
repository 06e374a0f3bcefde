package main

import (
	"context"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// After changes of --queue-pattern, while the peer is away, all messages arrive: those that
// wait in the queues of the earlier patterns, and those that are sent later.
func TestQueuePatternChanges(t *testing.T) {
	rabbit := rabbittest.Get(t)
	authority, agent := newServer(t, nodetype.AccountingAuthority), newServer(t, nodetype.CreditorsAgent)
	nodetest.Peer(t, authority.Node, agent.Node)
	at, far := newApplication(authority, agent), newApplication(agent, authority)
	at.other, far.other = far, at
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := amqp.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forgetAgents(t, conn)
	ch := channel(t, conn)
	if err := ch.Confirm(false); err != nil {
		t.Fatal(err)
	}
	if err := ch.ExchangeDeclare("creditors_out", "topic", true, false, false, false, amqp.Table{"alternate-exchange": "ca.loopback_filter"}); err != nil {
		t.Fatal(err)
	}
	returned := ch.NotifyReturn(make(chan amqp.Return, 1))
	put := func(n int) {
		t.Helper()
		typ, body := far.body(n)
		key := smp.OutgoingRoutingKey(nodetype.CreditorsAgent, nodetype.AccountingAuthority, int64(0x1234abcd_00_000000+n), 0)
		for {
			c, err := ch.PublishWithDeferredConfirmWithContext(ctx, "creditors_out", key, true, false, amqp.Publishing{
				DeliveryMode: amqp.Persistent, Type: typ, ContentType: "application/json", Body: body,
			})
			if err != nil {
				t.Fatal(err)
			}
			if ok, err := c.WaitContext(ctx); err != nil || !ok {
				t.Fatalf("not confirmed: %v\n%s", err, agent.log())
			}
			select {
			case <-returned: // the queues are not bound yet
				time.Sleep(20 * time.Millisecond)
			default:
				return
			}
		}
	}
	const each = 30
	count := 0
	for _, pattern := range []string{"first-{node-id}-{n}", "second-{node-id}-{n}"} {
		agent.broker = []string{"--broker", rabbit.URL(), "--queue-pattern", pattern}
		agent.start()
		queue := strings.NewReplacer("{node-id}", nodetest.AAID, "{n}", "0").Replace(pattern)
		until(t, "queue "+queue, func() error {
			probe := channel(t, conn)
			defer probe.Close()
			_, err := probe.QueueDeclarePassive(queue, true, false, false, false, nil)
			return err
		})
		for range each {
			put(count)
			count++
		}
		if strings.HasPrefix(pattern, "first") {
			agent.terminate()
		}
	}
	defer agent.kill()
	authority.start()
	defer authority.kill()
	go at.receive(ctx)
	for _, got := at.counts(); got < count; _, got = at.counts() {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d messages have arrived\n%s\n%s", got, count, authority.log(), agent.log())
		}
		time.Sleep(5 * time.Millisecond)
	}
}
