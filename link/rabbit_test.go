package link_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// On RabbitMQ the messages for a peer use as many connections as the peer has queues.
// More queues are used as soon as the directory specifies more, and all connections end
// when the peer is deactivated.
func TestSeveralQueues(t *testing.T) {
	t.Parallel()
	authority, other := linktest.PairOn(t, ca, linktest.RabbitMQ, linktest.Embedded)
	id := other.Identity().ID
	connections := func(n int) {
		t.Helper()
		linktest.Eventually(t, fmt.Sprint(n, " connections"), func() error {
			opened, closed := strings.Count(other.Log.String(), "msg=receiving"), strings.Count(other.Log.String(), "not receiving any more")
			if opened-closed != n {
				return fmt.Errorf("%d were opened and %d have ended", opened, closed)
			}
			return nil
		})
	}
	authority.Put(other, numbered(t, authority, other, 0, 100)...)
	other.Take(100)
	connections(1)

	if err := authority.SetQueues(context.Background(), id, 3); err != nil {
		t.Fatal(err)
	}
	connections(3)
	// RabbitMQ chooses a queue for each message: the probability that one of three gets
	// none of these is negligible.
	authority.Put(other, numbered(t, authority, other, 100, 900)...)
	other.Take(900)
	authority.WaitDrained(other, 0)
	for n := range 3 {
		if queue := fmt.Sprintf("queue=peer.%s.%d", id, n); !strings.Contains(authority.Log.String(), queue) {
			t.Errorf("%s is not in the log", queue)
		}
	}

	if _, err := authority.DeactivatePeer(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	connections(0)
}

// A peer that accepts fewer connections than there are queues gets the messages of all
// queues, by time slices, and each once.
func TestMoreQueuesThanConnections(t *testing.T) {
	t.Parallel()
	authority, other := linktest.NewOn(t, aa, linktest.RabbitMQ), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	if err := authority.SetQueues(context.Background(), other.Identity().ID, 3); err != nil {
		t.Fatal(err)
	}
	other.Config.MaxConnsPerPeer, other.Config.ConnTimeSlice, authority.Config.ConnTimeSlice = 1, 50*time.Millisecond, 50*time.Millisecond
	other.Start()
	authority.Start()
	linktest.Eventually(t, "a refusal for want of a turn", func() error {
		if text := other.Log.String(); !strings.Contains(text, "Too many connections") {
			return errors.New(text)
		}
		return nil
	})
	authority.Put(other, numbered(t, authority, other, 0, 1000)...)
	other.Take(1000)
	authority.WaitDrained(other, 0)
	if repeated := other.Service.Status().Peers[0].Counts.Stored - 1000; repeated != 0 {
		t.Errorf("%d messages came again: connections were not ended in an orderly way", repeated)
	}
}

// RabbitMQ is killed and restarted under load, below both nodes: the links are restored
// automatically, and nothing is lost.
//
// It is not parallel: the other tests use the same RabbitMQ.
func TestRabbitMQRestartsUnderLoad(t *testing.T) {
	s := rabbittest.Get(t)
	authority, other := linktest.PairOn(t, ca, linktest.RabbitMQ, linktest.RabbitMQ)
	s.AwaitSaved()
	testInterruptions(t, authority, other, 3, func(round int) {
		if round != 1 {
			return
		}
		s.Kill()
		linktest.Eventually(t, "the loss of the connection in the log", func() error {
			if strings.Count(authority.Log.String(), "connection to RabbitMQ lost") == 0 {
				return errors.New("nothing in the log")
			}
			return nil
		})
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	})
}

// While RabbitMQ accepts nothing, during a memory alarm, and messages are in flight in
// both directions, a service ends within its DrainTimeout and a few seconds.
//
// It is not parallel: the other tests use the same RabbitMQ.
func TestStopDuringAlarm(t *testing.T) {
	s := rabbittest.Get(t)
	authority, other := linktest.NewOn(t, aa, linktest.RabbitMQ), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Config.DrainTimeout = time.Second
	authority.Start()
	other.Start()
	authority.Put(other, numbered(t, authority, other, 0, 100)...)
	other.Put(authority, linktest.Message(t, other, authority, 0))
	other.Take(100)
	authority.Take(1)
	if err := s.Control("set_vm_memory_high_watermark", "0.0001"); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Control("set_vm_memory_high_watermark", "0.4"); err != nil {
			t.Error(err)
		}
	}()
	other.Put(authority, numbered(t, other, authority, 1, 3000)...)
	linktest.Eventually(t, "the alarm", func() error {
		if !strings.Contains(authority.Log.String(), "blocks publishing") {
			return errors.New("nothing in the log")
		}
		return nil
	})
	start := time.Now()
	if err := authority.Stop(); err != nil {
		t.Error(err)
	}
	if err := authority.Config.Broker.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(start); took > authority.Config.DrainTimeout+5*time.Second {
		t.Errorf("the end has taken %v", took.Round(time.Millisecond))
	}
}
