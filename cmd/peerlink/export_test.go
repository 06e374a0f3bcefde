package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// "state export" moves what waits for a peer to its first queue in RabbitMQ, in order, what is set aside to
// the dead-letter queue, and what was received to the inbox. If it is killed and repeated, every message
// is there, and at most one step of them twice. What has no place in RabbitMQ stays. Until an application
// has bound a queue to the inbox, what was received stays, too.
func TestStateExport(t *testing.T) {
	rabbit := rabbittest.Get(t)
	agent, authority := nodetest.New(t, nodetype.CreditorsAgent, "127.0.0.1:1"), nodetest.New(t, nodetype.AccountingAuthority, "127.0.0.1:2")
	nodetest.Peer(t, agent, authority)
	if err := agent.SetQueues(t.Context(), "1234abcd", 2); err != nil {
		t.Fatal(err)
	}
	const waiting, received, step = 1500, 20, 256
	state := t.TempDir()
	if err := fillState(state, waiting, received); err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forgetAgents(t, conn)
	inbox := nodetype.CreditorsAgent.Inbox()
	if err := channel(t, conn).ExchangeDelete(inbox, false, false); err != nil {
		t.Fatal(err)
	}
	queue := func(name string) (q amqp.Queue, exists bool) {
		t.Helper()
		ch := channel(t, conn) // RabbitMQ closes it if there is no queue
		defer ch.Close()
		q, err := ch.QueueDeclarePassive(name, true, false, false, false, nil)
		return q, err == nil
	}
	command := func() (*exec.Cmd, *bytes.Buffer) {
		c := exec.Command(program(t), "-C", agent.Path(), "state", "export", "--state", state, "--queue-pattern", "export-{node-id}-{n}")
		c.Env = append(os.Environ(), "NO_COLOR=1", "PROTOCOL_BROKER_URL="+rabbit.URL())
		var said bytes.Buffer
		c.Stdout, c.Stderr = &said, &said
		return c, &said
	}
	wantFailure := func(texts ...string) {
		t.Helper()
		c, said := command()
		err := c.Run()
		for _, text := range append(texts, "Error:") {
			if err == nil || !strings.Contains(said.String(), text) || strings.Contains(said.String(), "guest:guest") {
				t.Errorf("error %v, want one with %q:\n%s", err, text, said)
			}
		}
	}

	// Killed as soon as a message is there.
	c, said := command()
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if q, _ := queue("export-1234abcd-0"); q.Messages > 0 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("no message has arrived:\n%s", said)
		}
	}
	c.Process.Kill()
	c.Wait()
	wantFailure(inbox, "let an application declare this exchange")
	declareInbox(t, conn, inbox)
	wantFailure("0 waiting and 1 set aside stay in queue creditors_out.unroutable of the embedded broker: there was no peer")

	ch := channel(t, conn)
	take := func(queue string, check func(d amqp.Delivery)) (n int) {
		t.Helper()
		for ; ; n++ {
			d, ok, err := ch.Get(queue, true)
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				return n
			}
			check(d)
		}
	}
	last, repeated := 0, 0
	take("export-1234abcd-0", func(d amqp.Delivery) {
		n, err := strconv.Atoi(string(d.Body))
		switch {
		case err != nil || n > last+1:
			t.Fatalf("message %q follows message %d", d.Body, last)
		case n <= last:
			repeated++
		default:
			last = n
		}
		if d.Type != "PrepareTransfer" || d.ContentType != "application/json" || d.DeliveryMode != amqp.Persistent ||
			d.Headers["x-peerlink-exchange"] != "creditors_out" || d.Headers["x-peerlink-routing-key"] != "12.34.ab.cd.00" {
			t.Fatalf("message %+v", d)
		}
	})
	if last != waiting || repeated > step {
		t.Errorf("messages 1 to %d are there, want %d; %d were repeated", last, waiting, repeated)
	}
	if n := take("export-1234abcd-0.XQ", func(d amqp.Delivery) {
		if string(d.Body) != "aside" || d.Headers["x-peerlink-reason"] != "a reason" {
			t.Errorf("dead letter %+v", d)
		}
	}); n != 1 && n != 2 {
		t.Errorf("%d dead letters, want 1, perhaps repeated", n)
	}
	if n := take(inbox, func(d amqp.Delivery) {
		if d.AppId != "swpt_stomp" || d.Headers["debtor-id"] != int64(7) || d.Type != "AccountUpdate" || d.RoutingKey != "1.2" {
			t.Errorf("received message %+v", d)
		}
	}); n != received {
		t.Errorf("%d received messages, want %d", n, received)
	}
	// The peer's other objects are those that the service makes.
	if err := ch.QueueBind("export-1234abcd-1", "x", "ca.x.1234abcd", false, nil); err != nil {
		t.Error(err)
	}
	if patterns, err := agent.QueuePatterns(); err != nil || len(patterns) != 1 {
		t.Errorf("the recorded patterns are %q, %v", patterns, err)
	}
	left, err := embedded.ReadWaiting(filepath.Join(state, "messages.db"))
	if err != nil || left.Messages != 0 || left.SetAside != 1 {
		t.Errorf("%+v are left, %v", left, err)
	}
}

// fillState makes a message store of a creditors agent, with messages of all kinds.
func fillState(state string, waiting, received int) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	store, err := embedded.Open(filepath.Join(state, "messages.db"), embedded.Options{})
	if err != nil {
		return err
	}
	defer store.Close()
	queue := link.DefaultQueuePattern.Name("1234abcd", 0)
	if err := store.Bind(ctx, broker.PeerBinding{PeerID: "1234abcd", Prefix: "ca", Exchange: "creditors_out", BindingKey: "12.34.ab.cd.#", Queues: []string{queue}}); err != nil {
		return err
	}
	settled := make(chan error, waiting+2)
	send := func(key, body, invalid string) error {
		return store.SendOrSetAside(ctx, embedded.Sending{
			Exchange: "creditors_out", RoutingKey: key, Invalid: invalid,
			Outgoing:   broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: []byte(body)},
			Unroutable: func(*broker.Outgoing) *broker.Incoming { return nil },
		}, func(_ embedded.Outcome, err error) { settled <- err })
	}
	for n := range waiting {
		err = errors.Join(err, send("12.34.ab.cd.00", fmt.Sprint(n+1), ""))
	}
	err = errors.Join(err, send("12.34.ab.cd.00", "aside", "a reason"), send("99.00", "unroutable", ""))
	for range waiting + 2 {
		err = errors.Join(err, <-settled)
	}
	if err != nil {
		return err
	}
	stored := make(chan error, received+1)
	p, err := store.Publish(ctx, func(n uint64, err error) {
		if err != nil || n == uint64(received) {
			stored <- err
		}
	})
	if err != nil {
		return err
	}
	defer p.Close()
	for range received {
		if err := p.Publish(ctx, &broker.Incoming{
			Peer: "1234abcd", Exchange: "creditors_in", RoutingKey: "1.2", Type: "AccountUpdate", ContentType: "application/json",
			Headers: []broker.Header{{Name: "debtor-id", Value: int64(7)}}, Body: []byte("{}"),
		}); err != nil {
			return err
		}
	}
	return <-stored
}
