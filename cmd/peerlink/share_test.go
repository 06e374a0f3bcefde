package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
)

// Two processes serve one node, with the same flags as a single process would have. They
// share the queues to the peer; when one of them is killed, the other sends from all queues
// within seconds. No message is lost.
func TestServeShared(t *testing.T) {
	rabbit := rabbittest.Get(t)
	const queues, count = 6, 3000
	at, far, conn := rabbitPair(t, rabbit)
	authority, agent := at.node, far.node
	if err := agent.SetQueues(t.Context(), authority.Identity().ID, queues); err != nil {
		t.Fatal(err)
	}
	agent.broker = []string{"--broker", rabbit.URL(), "--queue-pattern", "shared.{node-id}.{n}"}
	twin := *agent
	twin.addr, twin.state = "127.0.0.1:0", t.TempDir()
	for _, s := range []*server{authority, agent, &twin} {
		s.start()
		defer s.kill()
	}
	ctx, stop := context.WithCancel(t.Context())
	received := make(chan struct{})
	go func() { defer close(received); at.receive(ctx) }()
	defer func() { stop(); <-received }()

	start := time.Now()
	consumedOnce(t, conn, "shared.1234abcd.", queues)
	has := []int{queuesOf(t, agent), queuesOf(t, &twin)}
	t.Logf("queues by process: %v, after %v", has, time.Since(start))
	if has[0] == 0 || has[1] == 0 {
		t.Errorf("the processes send from %v of %d queues, want at least one each", has, queues)
	}

	publishFrom(t, conn, far, 0, count)
	twin.kill()
	twin.exited <- nil // for the second kill
	start = time.Now()
	until(t, "taking over", func() error {
		if n := queuesOf(t, agent); n < queues {
			return fmt.Errorf("the other process sends from %d of %d queues\n%s", n, queues, agent.log())
		}
		return nil
	})
	t.Logf("taken over after %v", time.Since(start))
	until(t, "the arrival of all messages", func() error {
		if _, got := at.counts(); got < count {
			return fmt.Errorf("%d of %d have arrived\n%s", got, count, agent.log())
		}
		return nil
	})
}

// consumedOnce waits until each of a peer's queues has one consumer.
func consumedOnce(t *testing.T, conn *amqp.Connection, prefix string, queues int) {
	t.Helper()
	until(t, "consuming all queues", func() error {
		for n := range queues {
			ch := channel(t, conn)
			q, err := ch.QueueDeclarePassive(fmt.Sprint(prefix, n), true, false, false, false, nil)
			if err != nil {
				return err
			}
			ch.Close()
			if q.Consumers != 1 {
				return fmt.Errorf("%s has %d consumers", q.Name, q.Consumers)
			}
		}
		return nil
	})
}

// queuesOf returns the number of queues from which a process has begun to send.
func queuesOf(t *testing.T, s *server) int {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(s.state, "log"))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Count(string(log), "msg=sending")
}
