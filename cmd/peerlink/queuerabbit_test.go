package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// Without a running service, an operator can manage the queues that the reference
// implementation has made and filled: list the messages that the reference's client has
// rejected, in all queues of a peer, retry them, and drop the others. No output contains the
// password.
func TestQueueRabbitMQ(t *testing.T) {
	rabbit := rabbittest.Get(t)
	agent, authority := nodetest.New(t, nodetype.CreditorsAgent, "127.0.0.1:1"), nodetest.New(t, nodetype.AccountingAuthority, "127.0.0.1:2")
	nodetest.Peer(t, agent, authority)
	if err := agent.SetQueues(t.Context(), "1234abcd", 3); err != nil {
		t.Fatal(err)
	}
	conn, err := amqp.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch := channel(t, conn)
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	check(ch.Confirm(false))
	publish := func(queue, typ, body string) {
		t.Helper()
		c, err := ch.PublishWithDeferredConfirm("", queue, true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Type: typ, ContentType: "application/json", Body: []byte(body),
		})
		check(err)
		if !c.Wait() {
			t.Fatalf("queue %s does not accept a message", queue)
		}
	}
	// The third queue does not exist yet.
	for _, queue := range []string{"ref-1234abcd-0", "ref-1234abcd-1"} {
		_, err := ch.QueueDeclare(queue+".XQ", true, false, false, false, nil)
		check(err)
		_, err = ch.QueueDeclare(queue, true, false, false, false, amqp.Table{
			"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue + ".XQ",
		})
		check(err)
		publish(queue, "ConfigureAccount", "rejected from "+queue)
		d, ok, err := ch.Get(queue, false)
		if err != nil || !ok {
			t.Fatalf("no message in %s, %v", queue, err)
		}
		check(d.Reject(false))
		for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(5 * time.Millisecond) {
			q, err := ch.QueueDeclarePassive(queue+".XQ", true, false, false, false, nil)
			check(err)
			if q.Messages == 1 {
				break
			}
			if time.Now().After(deadline) {
				t.Fatalf("the rejected message is not in %s", q.Name)
			}
		}
	}
	publish("ref-1234abcd-1", "PrepareTransfer", "waits")
	publish("ref-1234abcd-1.XQ", "PrepareTransfer", "put there")

	peerlink := func(args ...string) (string, error) {
		t.Helper()
		c := exec.Command(program(t), append([]string{"-C", agent.Path(), "queue"}, args...)...)
		c.Env = append(os.Environ(), "NO_COLOR=1", "PROTOCOL_BROKER_URL="+rabbit.URL(), "PEERLINK_QUEUE_PATTERN=ref-{node-id}-{n}")
		var said bytes.Buffer
		c.Stderr = &said
		out, err := c.Output()
		if strings.Contains(said.String()+string(out), "guest:guest") {
			t.Errorf("%q prints the password", args)
		}
		return string(out) + said.String(), err
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := peerlink(args...)
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		return out
	}

	var queues []struct {
		Queue    string
		Exists   bool
		Waiting  int
		SetAside int `json:"set_aside"`
	}
	check(json.Unmarshal([]byte(run("list", "--json")), &queues))
	if len(queues) != 3 || queues[0].SetAside != 1 || queues[1].SetAside != 2 || queues[1].Waiting != 1 || queues[2].Exists {
		t.Fatalf("the queues are %+v", queues)
	}
	type message struct{ Queue, ID, Reason, Body string }
	look := func() []message {
		t.Helper()
		var found []message
		check(json.Unmarshal([]byte(run("show", "1234abcd", "--json")), &found))
		return found
	}
	found := look()
	if len(found) != 3 || found[0].Queue != "ref-1234abcd-0" || !strings.Contains(found[1].Reason, "rejected") || found[2].Reason != "" {
		t.Fatalf("set aside are %+v", found)
	}
	if out := run("show", "1234abcd", found[1].ID); !strings.Contains(out, "rejected from ref-1234abcd-1\n") {
		t.Errorf("shown is %s", out)
	}
	if out, err := peerlink("retry", "ref-1234abcd-0", found[1].ID); err == nil || !strings.Contains(out, "nothing was done") {
		t.Errorf("a message of another queue was retried: %s", out)
	}
	if out, err := peerlink("show", "1234abcd", "--queue-pattern", "x-{node-id}-{n}"); err == nil || !strings.Contains(out, "there is no queue x-1234abcd-0") {
		t.Errorf("with another pattern, the error does not say that the queue is missing: %s", out)
	}
	run("retry", "1234abcd", found[1].ID, found[0].ID)
	for queue, want := range map[string][]string{
		"ref-1234abcd-0": {"rejected from ref-1234abcd-0"},
		"ref-1234abcd-1": {"waits", "rejected from ref-1234abcd-1"},
	} {
		for _, body := range want {
			if d, ok, err := ch.Get(queue, true); err != nil || !ok || string(d.Body) != body {
				t.Errorf("queue %s has %q, %v, want %q", queue, d.Body, err, body)
			}
		}
	}
	if found = look(); len(found) != 1 || found[0].Queue != "ref-1234abcd-1" {
		t.Errorf("set aside are %+v", found)
	}
	run("drop", "1234abcd", "--all", "--yes")
	if found = look(); len(found) != 0 {
		t.Errorf("set aside are %+v", found)
	}
}
