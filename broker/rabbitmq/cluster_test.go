package rabbitmq

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// In a cluster, when the node that the consuming process is connected to is killed,
// another process consumes the quorum queue within ten seconds, and gets the unconfirmed
// messages, while that node is still down.
func TestClusterTakeover(t *testing.T) {
	if os.Getenv("PEERLINK_TEST_CLUSTER") == "" {
		t.Skip("skipped: a cluster of RabbitMQ (set PEERLINK_TEST_CLUSTER=1)")
	}
	cluster, err := rabbittest.NewCluster(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Remove() })
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	nodes := cluster.Nodes
	o := newTestClient(t, nodes[0])
	if version := o.conn.Properties["version"].(string); majorOf(version) >= 4 && !strings.HasPrefix(version, "4.0.") && !strings.HasPrefix(version, "4.1.") && !strings.HasPrefix(version, "4.2.") {
		// RabbitMQ returns the deliveries of a consumer on a dead node after a minute.
		o.check(nodes[0].Control("set_policy", "quick", ".*", `{"consumer-disconnected-timeout":3000}`, "--apply-to", "quorum_queues"))
	}
	log := new(logBuffer)
	b := openTest(t, nodes[1].URL(), Options{QueueType: Quorum, Logger: log.logger()})
	other := openTest(t, nodes[2].URL(), Options{QueueType: Quorum})
	q := testPeer()
	queue := q.Queues[0]
	o.check(b.Bind(testContext(t), q))
	const count = 100
	o.check(o.send(q.Exchange, q.PeerID+".1", publishings(make([]broker.Outgoing, count))...))
	first, err := other.Consume(testContext(t), queue)
	o.check(err)
	_, err = first.Next(testContext(t), 10)
	o.check(err)
	if _, err := b.Consume(testContext(t), queue); !errors.Is(err, broker.ErrInUse) {
		t.Fatalf("consuming beside another process: got %v, want ErrInUse", err)
	}
	nodes[2].Kill()
	killed := time.Now()
	var c broker.Consumer
	eventually(t, "taking the queue over", func() error {
		err := b.CheckInUse(testContext(t), queue)
		if err == nil {
			c, err = b.Consume(testContext(t), queue)
		}
		return err
	})
	for got := 0; got < count; {
		ds, err := c.Next(testContext(t), count)
		o.check(err)
		got += len(ds)
	}
	took := time.Since(killed)
	t.Logf("RabbitMQ %v: taken over after %v; consumers that it counts: %d\n%s", o.conn.Properties["version"], took, consumersOf(o, queue), log)
	if took > 10*time.Second {
		t.Errorf("another process consumes the queue after %v, want at most 10s", took)
	}
}

func consumersOf(o *testClient, queue string) (n int) {
	o.check(o.onChannel(func(ch *amqp.Channel) error {
		q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
		n = q.Consumers
		return err
	}))
	return n
}
