package link_test

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// Services of one node that start together share its queues about evenly, and each
// queue has one consumer. When a service ends, the others take over its queues. Nothing
// is lost.
func TestServicesShareQueues(t *testing.T) {
	t.Parallel()
	s := rabbittest.Get(t)
	const queues, each = 12, 3000
	other := linktest.New(t, ca)
	other.Config.MaxConnsPerPeer = 2 * queues
	first := linktest.NewOn(t, aa, linktest.RabbitMQ)
	first.Config.AcquireSpread = 30 * time.Second // on a busy machine they do not start at the same moment
	services := []*linktest.Node{first, linktest.Replica(t, first), linktest.Replica(t, first)}
	nodetest.Peer(t, first.Node, other.Node)
	id := other.Identity().ID
	if err := first.SetQueues(context.Background(), id, queues); err != nil {
		t.Fatal(err)
	}
	names := make([]string, queues)
	for n := range names {
		names[n] = fmt.Sprintf("peer.%s.%d", id, n)
	}
	other.Start()
	for _, n := range services {
		n.Start()
	}

	consumed(t, s, names, 1)
	allSent(t, queues, services...)
	for i, n := range services {
		t.Log("service", i, "sends from", sending(n))
		if has := sending(n); has < 2 || has > 7 {
			t.Errorf("service %d sends from %d of %d queues, want about %d", i, has, queues, queues/len(services))
		}
	}
	first.Put(other, numbered(t, first, other, 0, each)...)
	got := other.Take(each)

	// The connections to RabbitMQ end before the service does.
	first.Put(other, numbered(t, first, other, each, each)...)
	if err := services[1].Config.Broker.Close(); err != nil {
		t.Fatal(err)
	}
	consumed(t, s, names, 1)
	allSent(t, queues, services[0], services[2])
	first.Put(other, numbered(t, first, other, 2*each, each)...)
	for len(got) < 3*each { // some may be delivered twice
		maps.Copy(got, other.Take(3*each-len(got)))
	}
	first.WaitDrained(other, 0)
	// Each queue may be handed over a few times.
	if log := services[0].Log.String(); strings.Count(log, "standing by") > 5*queues || strings.Contains(log, "level=ERROR") {
		t.Errorf("log of a service:\n%s", log)
	}
}

// A service that is restarted gets its share of the queues from those that have more,
// within a minute and under load: no message is lost or delivered twice, because queues are yielded in an
// orderly way. Then all services keep their queues.
func TestServiceComesBack(t *testing.T) {
	t.Parallel()
	s := rabbittest.Get(t)
	const queues, each = 9, 2000
	other := linktest.New(t, ca)
	other.Config.MaxConnsPerPeer = 2 * queues
	first := linktest.NewOn(t, aa, linktest.RabbitMQ)
	//XX	first.Config.StandbyInterval = 300 * time.Millisecond // queues are acquired sooner, also on a busy machine
	services := []*linktest.Node{first, linktest.Replica(t, first), linktest.Replica(t, first)}
	nodetest.Peer(t, first.Node, other.Node)
	if err := first.SetQueues(context.Background(), other.Identity().ID, queues); err != nil {
		t.Fatal(err)
	}
	names := make([]string, queues)
	for n := range names {
		names[n] = fmt.Sprintf("peer.%s.%d", other.Identity().ID, n)
	}
	other.Start()
	got := make(map[string]broker.Incoming)
	for i, n := range services {
		start := time.Now()
		n.Start()
		allSent(t, queues, services[:i+1]...)
		first.Put(other, numbered(t, first, other, i*each, each)...)
		linktest.Eventually(t, "a part of the queues", func() error {
			for _, n := range services[:i+1] {
				if has := sending(n); has < queues/(i+1) || has > (queues+i)/(i+1) {
					return fmt.Errorf("of %d services, one has %d of %d queues\n%s", i+1, has, queues, n.Log)
				}
			}
			return nil
		})
		if took := time.Since(start); took > time.Minute { // a second, if the machine is not busy
			t.Errorf("%d services share the queues after %v, want a minute at most", i+1, took)
		}
		maps.Copy(got, other.Take(each))
	}
	first.WaitDrained(other, 0)
	if repeated := other.Service.Status().Peers[0].Counts.Stored - 3*each; len(got) != 3*each || repeated != 0 {
		t.Errorf("%d of %d messages came, %d came again", len(got), 3*each, repeated)
		for _, n := range services {
			t.Log(n.Log)
		}
	}
	consumed(t, s, names, 1)
	moved := 0
	for _, n := range services {
		moved += strings.Count(n.Log.String(), "gets this one")
	}
	if moved < 4 || moved > 24 {
		t.Errorf("queues were moved %d times, want about 8", moved)
	}
}

// allSent waits until some services send from this number of queues together.
func allSent(t *testing.T, queues int, services ...*linktest.Node) {
	t.Helper()
	linktest.Eventually(t, "sending from all queues", func() error {
		total := 0
		for _, n := range services {
			total += sending(n)
		}
		if total != queues {
			return fmt.Errorf("they send from %d of %d queues", total, queues)
		}
		return nil
	})
}

// sending returns the number of queues from which a service sends.
func sending(n *linktest.Node) int {
	log := n.Log.String()
	return strings.Count(log, "msg=sending") - strings.Count(log, "not sending any more") - strings.Count(log, "msg=disconnected")
}

// consumed waits until each queue has n consumers.
func consumed(t *testing.T, s *rabbittest.Server, queues []string, n int) {
	t.Helper()
	conn, err := amqp.Dial(s.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	linktest.Eventually(t, "consuming all queues", func() error {
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		defer ch.Close()
		var counts []int
		for _, queue := range queues {
			q, err := ch.QueueDeclarePassive(queue, true, false, false, false, nil)
			if err != nil {
				return err
			}
			counts = append(counts, q.Consumers)
		}
		if slices.ContainsFunc(counts, func(c int) bool { return c != n }) {
			return fmt.Errorf("the numbers of consumers of the queues are %v, want %d each", counts, n)
		}
		return nil
	})
}
