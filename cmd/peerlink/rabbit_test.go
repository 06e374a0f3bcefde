package main

import (
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/local"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// A service with RabbitMQ and a service with an embedded store can be peers: the
// applications of each side receive all messages of the other side, and the queues
// are those that the flags specify. The service with RabbitMQ makes no files in the
// state folder, does not log the password, and ends normally.
func TestServeRabbitMQ(t *testing.T) {
	rabbit := rabbittest.Get(t)
	const count = 1000
	at, far, conn := rabbitPair(t, rabbit)
	authority, agent := at.node, far.node
	agent.broker = []string{"--broker", rabbit.URL(), "--queue-pattern", "to-{node-id}-{n}", "--queue-type", "quorum", "--admin", freeAddress(t)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	ch := channel(t, conn)
	inbox := agent.Identity().Type.Inbox()
	if err := ch.ExchangeDeclare(inbox, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(inbox, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(inbox, "#", inbox, false, nil); err != nil {
		t.Fatal(err)
	}
	for _, s := range []*server{authority, agent} {
		s.start()
		defer s.kill()
	}

	// From the application at RabbitMQ to the application at the local door.
	far.waitForQueue(ctx, conn, "to-1234abcd-0")
	for n := range count {
		typ, body := far.body(n)
		key := smp.OutgoingRoutingKey(nodetype.CreditorsAgent, nodetype.AccountingAuthority, int64(0x1234abcd_00_000000+n), 0)
		err := ch.PublishWithContext(ctx, "creditors_out", key, true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Type: typ, ContentType: "application/json", Body: body,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	receiveCtx, stopReceiving := context.WithCancel(ctx)
	received := make(chan struct{})
	go func() { defer close(received); at.receive(receiveCtx) }()
	for _, got := at.counts(); got < count; _, got = at.counts() {
		if ctx.Err() != nil {
			t.Fatalf("%d of %d messages have arrived\n%s\n%s", got, count, authority.log(), agent.log())
		}
		time.Sleep(5 * time.Millisecond)
	}
	stopReceiving()
	<-received

	// In the other direction.
	client, err := at.dial(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	for n := range count {
		typ, body := at.body(n)
		key := smp.OutgoingRoutingKey(nodetype.AccountingAuthority, nodetype.CreditorsAgent, int64(0x1234abcd_00_000000+n), 0x000001_01_00000000)
		if err := client.Send(ctx, "to_creditors", key, typ, body, func(err error) { at.settle(n, err) }); err != nil {
			t.Fatal(err)
		}
	}
	deliveries, err := ch.ConsumeWithContext(ctx, inbox, "", true, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	for got := 0; got < count; _, got = far.counts() {
		d, ok := <-deliveries
		if !ok {
			t.Fatalf("%d of %d messages have arrived\n%s\n%s", got, count, authority.log(), agent.log())
		}
		if d.AppId != "swpt_stomp" || d.Headers["ca-creditors"] == nil {
			t.Errorf("message of %q with headers %v", d.AppId, d.Headers)
		}
		far.take(local.Message{Body: d.Body})
	}
	if damaged := append(at.damaged, far.damaged...); len(damaged) > 0 {
		t.Errorf("%d messages were changed in transit, for example %s", len(damaged), damaged[0])
	}

	if _, err := channel(t, conn).QueueDeclare("to-1234abcd-0.XQ", true, false, false, false, nil); err == nil {
		t.Error("the dead-letter queue is a classic one")
	}
	dropOnDashboard(ctx, t, agent, channel(t, conn), "to-1234abcd-0")
	agent.process.Process.Signal(syscall.SIGTERM)
	if err := <-agent.exited; err != nil {
		t.Errorf("the service has ended with %v", err)
	}
	agent.exited <- nil // for kill
	log := agent.log()
	if !strings.Contains(log, "msg=stopped") || strings.Contains(log, "level=ERROR") || strings.Contains(log, "guest:guest") {
		t.Errorf("log of the service:\n%s", log)
	}
	files, err := os.ReadDir(agent.state)
	if err != nil || len(files) != 1 { // only the log
		t.Errorf("the state folder contains %v, %v", files, err)
	}
}

// dropOnDashboard puts two messages into the dead-letter queue of the peer 1234abcd, and drops the first on the
// dashboard of the service.
func dropOnDashboard(ctx context.Context, t *testing.T, s *server, ch *amqp.Channel, queue string) {
	t.Helper()
	for _, body := range []string{"first", "second"} {
		if err := ch.PublishWithContext(ctx, "", queue+".XQ", true, false, amqp.Publishing{DeliveryMode: amqp.Persistent, Body: []byte(body)}); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.CommandContext(ctx, program(t), "-C", s.Path(), "dashboard", "--json").Output()
	var found []struct{ URL, Token string }
	if err != nil || json.Unmarshal(out, &found) != nil || len(found) != 1 {
		t.Fatalf("peerlink dashboard: %s, %v", out, err)
	}
	ask := func(method string, form url.Values) string {
		t.Helper()
		req, err := http.NewRequestWithContext(ctx, method, found[0].URL+"peers/1234abcd/aside", strings.NewReader(form.Encode()))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+found[0].Token)
		req.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		page, err := io.ReadAll(res.Body)
		if err != nil || res.StatusCode != http.StatusOK {
			t.Fatalf("%s, %v:\n%s", res.Status, err, page)
		}
		return string(page)
	}
	page := ask("GET", nil)
	key := regexp.MustCompile(`name="message" value="([^"]*)"`).FindStringSubmatch(page)
	if key == nil || !strings.Contains(page, ">first<") || !strings.Contains(page, ">second<") {
		t.Fatalf("the page does not show the messages:\n%s", page)
	}
	if page = ask("POST", url.Values{"action": {"drop-now"}, "message": {key[1]}}); strings.Contains(page, ">first<") || !strings.Contains(page, ">second<") {
		t.Errorf("not the first message was dropped:\n%s", page)
	}
}

// rabbitPair returns the applications of an accounting authority and of a creditors agent that
// are peers, and a connection to RabbitMQ, which the agent's service is to use.
func rabbitPair(t *testing.T, rabbit *rabbittest.Server) (at, far *application, conn *amqp.Connection) {
	t.Helper()
	authority, agent := newServer(t, nodetype.AccountingAuthority), newServer(t, nodetype.CreditorsAgent)
	nodetest.Peer(t, authority.Node, agent.Node)
	at, far = newApplication(authority, agent), newApplication(agent, authority)
	at.other, far.other = far, at
	conn, err := amqp.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	forgetAgents(t, conn)
	return at, far, conn
}

// forgetAgents removes the exchange and the inbox of creditors agents of earlier tests from
// RabbitMQ: all such agents have the same peer, so that messages to it would also be routed to
// the queues of the earlier agents.
func forgetAgents(t *testing.T, conn *amqp.Connection) {
	t.Helper()
	ch := channel(t, conn)
	defer ch.Close()
	if err := ch.ExchangeDelete("ca.x."+nodetest.AAID, false, false); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDelete(nodetype.CreditorsAgent.Inbox(), false, false, false); err != nil {
		t.Fatal(err)
	}
}

// waitForQueue waits until the service has declared the queue to its peer and consumes it.
func (a *application) waitForQueue(ctx context.Context, conn *amqp.Connection, queue string) {
	for {
		ch := channel(a.node.t, conn)
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err == nil && q.Consumers > 0 {
			ch.Close()
			return
		}
		select {
		case <-ctx.Done():
			a.node.t.Fatalf("queue %s: %v\n%s", queue, err, a.node.log())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

func channel(t *testing.T, conn *amqp.Connection) *amqp.Channel {
	t.Helper()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	return ch
}
