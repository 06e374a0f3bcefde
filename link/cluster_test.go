package link_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/smp"
)

const (
	// clusterRate is how many messages are sent per second, in each direction.
	clusterRate = 200
	// maxStandstill is how long no message may be delivered while a majority of the
	// cluster is up.
	maxStandstill = 10 * time.Second
)

// clusterQueueType is the type of the queues on the cluster: quorum, unless the environment
// says classic. A classic queue exists on one node only, so that its messages have to wait
// while this node is down.
func clusterQueueType() rabbitmq.QueueType {
	return rabbitmq.QueueType(cmp.Or(os.Getenv("PEERLINK_TEST_CLUSTER_QUEUE_TYPE"), string(rabbitmq.Quorum)))
}

// The three nodes of a RabbitMQ cluster are killed, frozen for a minute, cut off from
// the others and restarted, one after the other, below one service and below several,
// while messages are sent in both directions. None is lost, and while there is a
// majority, delivery from quorum queues stands still for at most ten seconds.
func TestClusterFaults(t *testing.T) {
	if os.Getenv("PEERLINK_TEST_CLUSTER") == "" {
		t.Skip("skipped: faults of a cluster of RabbitMQ, which take half an hour (make test-cluster)")
	}
	cluster, err := rabbittest.NewCluster(3)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cluster.Remove() })
	if err := cluster.Start(); err != nil {
		t.Fatal(err)
	}
	// RabbitMQ 4.3 returns what a consumer on a killed node had taken after a minute, unless a
	// policy says otherwise. Earlier versions return it at once, and do not know the policy.
	policy, err := cluster.Nodes[0].ControlOutput("set_policy", "quick", ".*", `{"consumer-disconnected-timeout":3000}`, "--apply-to", "quorum_queues")
	t.Logf("policy for quorum queues: %s %v", policy, err)
	for _, services := range []int{1, 3} {
		t.Run(fmt.Sprint(services, " services"), func(t *testing.T) {
			l := newClusterLoad(t, cluster, services)
			for i, s := range cluster.Nodes {
				l.fault(t, fmt.Sprint("kill node ", i), func() error {
					s.Kill()
					time.Sleep(15 * time.Second)
					return s.Start()
				})
				l.fault(t, fmt.Sprint("freeze node ", i), func() error {
					if err := s.Pause(); err != nil {
						return err
					}
					time.Sleep(time.Minute)
					return s.Resume()
				})
				l.fault(t, fmt.Sprint("partition node ", i), func() error {
					if err := cluster.Isolate(s); err != nil {
						return err
					}
					time.Sleep(20 * time.Second)
					return cluster.Reconnect(s)
				})
			}
			l.fault(t, "roll", func() error {
				for _, s := range cluster.Nodes {
					if err := s.Stop(); err != nil {
						return err
					}
					if err := s.Start(); err != nil {
						return err
					}
					if err := cluster.AwaitWhole(); err != nil {
						return err
					}
				}
				return nil
			})
			for way, f := range map[string]*flow{"to the peer": l.out, "from the peer": l.in} {
				if names := f.neverReceived(); len(names) > 0 {
					t.Errorf("%s: %d messages were never received: %q", way, len(names), names)
				}
			}
		})
	}
}

// clusterLoad is an accounting authority on a cluster that exchanges messages with a peer.
type clusterLoad struct {
	cluster          *rabbittest.Cluster
	authority, other *linktest.Node
	services         []*linktest.Node
	out, in          *flow // from the cluster to the peer, and back
}

// flow counts the messages in one direction.
type flow struct {
	taken atomic.Bool // messages are to be sent

	mu    sync.Mutex
	sent  map[string]time.Time // durable at the sender, since when
	came  map[string]int       // how often each was received
	open  int                  // how many of sent were not received yet
	late  map[string]bool      // of earlier faults, not received yet
	since time.Time            // when a message was last received, or none was open
	worst time.Duration        // the longest standstill
	delay time.Duration        // the longest time between durable at the sender and received
}

func newFlow() *flow {
	return &flow{sent: make(map[string]time.Time), came: make(map[string]int), late: make(map[string]bool)}
}

// note calls do, which changes the counts, and updates the longest standstill.
func (f *flow) note(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	was := f.open
	f.measure()
	if do(); f.open < was || was == 0 {
		f.since = time.Now()
	}
}

func (f *flow) measure() {
	if f.open > 0 && !f.since.IsZero() {
		f.worst = max(f.worst, time.Since(f.since))
	}
}

func (f *flow) add(names []string) {
	f.note(func() {
		for _, name := range names {
			f.sent[name] = time.Now()
			if f.came[name] == 0 {
				f.open++
			}
		}
	})
}

func (f *flow) arrive(t *testing.T, body []byte) {
	var m struct {
		Data string `json:"config_data"`
	}
	if err := json.Unmarshal(body, &m); err != nil {
		t.Error(err)
	}
	f.note(func() {
		if since, sent := f.sent[m.Data]; sent && f.came[m.Data] == 0 {
			f.open--
			f.delay = max(f.delay, time.Since(since))
		}
		f.came[m.Data]++
		if f.late[m.Data] {
			t.Logf("received after the end of its fault: %s", m.Data)
			delete(f.late, m.Data)
		}
	})
}

// report returns the results since the last report.
func (f *flow) report() (text string, worst time.Duration, lost int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.measure()
	repeated := 0
	for name, n := range f.came {
		if _, sent := f.sent[name]; sent {
			repeated += n - 1
		}
	}
	for name := range f.sent {
		if f.came[name] == 0 {
			f.late[name] = true
		}
	}
	worst, lost = f.worst, f.open
	text = fmt.Sprintf("sent %d, delivered %d, lost %d, repeated %d, standstill %.1f s, longest delay %.1f s", len(f.sent), len(f.sent)-lost, lost, repeated, worst.Seconds(), f.delay.Seconds())
	f.sent, f.came, f.open, f.worst, f.delay, f.since = make(map[string]time.Time), make(map[string]int), 0, 0, 0, time.Time{}
	return text, worst, lost
}

func (f *flow) missing() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.open
}

// neverReceived returns the messages of all earlier faults that were not received.
func (f *flow) neverReceived() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.late))
}

func newClusterLoad(t *testing.T, cluster *rabbittest.Cluster, services int) *clusterLoad {
	on := func(t testing.TB, n *linktest.Node) {
		b, err := rabbitmq.Open(cluster.URLs(), rabbitmq.Options{Logger: n.Log.Logger(), QueueType: clusterQueueType()})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { b.Close() })
		n.Config.Broker, n.Config.AllQueues = b, true
	}
	l := &clusterLoad{cluster: cluster, authority: linktest.NewOn(t, aa, on), other: linktest.New(t, ca), out: newFlow(), in: newFlow()}
	l.services = []*linktest.Node{l.authority}
	for len(l.services) < services {
		l.services = append(l.services, linktest.ReplicaOn(t, l.authority, on))
	}
	l.other.Config.MaxConnsPerPeer = 20
	nodetest.Peer(t, l.authority.Node, l.other.Node)
	if err := l.authority.SetQueues(context.Background(), l.other.Identity().ID, 3); err != nil {
		t.Fatal(err)
	}
	app := &clusterApp{urls: strings.Split(cluster.URLs(), ",")}
	inbox := l.authority.Identity().Type.Inbox()
	linktest.Eventually(t, "declaring the inbox", func() error { return app.declare(inbox) })
	t.Cleanup(func() {
		// The next peer has the same routing keys: its messages would be confirmed as soon as
		// they are in the queues of this one.
		for n := range 3 {
			queue := fmt.Sprintf("peer.%s.%d", l.other.Identity().ID, n)
			if err := cluster.Nodes[0].Control("delete_queue", queue); err != nil {
				t.Error(err)
			}
		}
	})
	for _, n := range l.services {
		n.Config.StandbyInterval, n.Config.RetryMax = 3*time.Second, time.Second
		n.Start()
	}
	l.other.Start()

	ctx, stop := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	t.Cleanup(func() { stop(); wg.Wait() })
	wg.Go(func() { app.receive(ctx, inbox, func(body []byte) { l.in.arrive(t, body) }) })
	wg.Go(func() {
		sub := l.other.Store.Subscribe(l.other.Identity().Type.Inbox())
		defer sub.Close()
		for {
			batch, err := sub.Next(ctx, 1000)
			if err != nil {
				return
			}
			var seqs []uint64
			for _, m := range batch {
				seqs = append(seqs, m.Seq)
				l.out.arrive(t, m.Body)
			}
			_ = sub.Ack(seqs, nil) // on an error they are delivered again
		}
	})
	wg.Go(func() {
		l.send(ctx, t, l.authority, l.other, l.out, func(messages []broker.Outgoing) error {
			return app.send(ctx, l.authority.Identity().Type.Outbox(l.other.Identity().Type), l.other, messages)
		})
	})
	wg.Go(func() {
		l.send(ctx, t, l.other, l.authority, l.in, func(messages []broker.Outgoing) error {
			return l.other.Store.PutAll(ctx, linktest.QueueTo(l.authority), messages)
		})
	})
	return l
}

// send sends messages at a constant rate while taken is set.
func (l *clusterLoad) send(ctx context.Context, t *testing.T, from, to *linktest.Node, f *flow, put func([]broker.Outgoing) error) {
	const step = 10
	ticks := time.NewTicker(step * time.Second / clusterRate)
	defer ticks.Stop()
	for n := 0; ; n += step {
		select {
		case <-ctx.Done():
			return
		case <-ticks.C:
		}
		if !f.taken.Load() {
			continue
		}
		var messages []broker.Outgoing
		var names []string
		for i := range step {
			messages = append(messages, linktest.Message(t, from, to, n+i))
			names = append(names, fmt.Sprint("number ", n+i))
		}
		for put(messages) != nil && ctx.Err() == nil {
			time.Sleep(50 * time.Millisecond)
		}
		if ctx.Err() == nil {
			f.add(names)
		}
	}
}

// fault sends messages during a fault, and then waits until all are received.
func (l *clusterLoad) fault(t *testing.T, name string, do func() error) {
	t.Run(name, func(t *testing.T) {
		l.out.taken.Store(true)
		l.in.taken.Store(true)
		time.Sleep(5 * time.Second)
		err := do()
		if err == nil {
			err = l.cluster.AwaitWhole()
		}
		time.Sleep(5 * time.Second)
		l.out.taken.Store(false)
		l.in.taken.Store(false)
		if err != nil {
			t.Fatal(err)
		}
		for deadline := time.Now().Add(3 * linktest.Timeout); l.out.missing()+l.in.missing() > 0 && time.Now().Before(deadline); {
			time.Sleep(100 * time.Millisecond)
		}
		time.Sleep(time.Second) // for a put that is in progress
		if l.out.missing()+l.in.missing() > 0 {
			l.logQueues(t)
		}
		for _, way := range []struct {
			name string
			*flow
		}{{"to the peer", l.out}, {"from the peer", l.in}} {
			text, worst, lost := way.report()
			t.Logf("RESULT %s, %s: %s", name, way.name, text)
			if lost > 0 {
				t.Errorf("%s: want none lost", way.name)
			}
			if worst > maxStandstill && clusterQueueType() == rabbitmq.Quorum {
				t.Errorf("%s: want no standstill of more than %v", way.name, maxStandstill)
			}
		}
		if t.Failed() {
			for i, n := range l.services {
				t.Logf("log of service %d:\n%s", i, n.Log)
			}
		}
	})
}

// logQueues logs the queues of the cluster and their consumers.
func (l *clusterLoad) logQueues(t *testing.T) {
	for _, args := range [][]string{
		{"-q", "list_queues", "name", "type", "messages_ready", "messages_unacknowledged", "consumers", "leader", "online"},
		{"-q", "list_consumers"},
		{"-q", "list_channels", "pid", "connection", "number", "consumer_count", "messages_unacknowledged", "acks_uncommitted", "prefetch_count"},
	} {
		for _, s := range l.cluster.Nodes {
			out, err := s.ControlOutput(args...)
			t.Logf("%s: %q: %v\n%s", s.Name(), args, err, out)
		}
	}
}

// clusterApp is an application on the cluster, which switches to another node when one
// fails.
type clusterApp struct {
	urls []string
	next atomic.Int64

	conn      *amqp.Connection // for sending
	ch        *amqp.Channel
	confirmed chan amqp.Confirmation
	returned  chan amqp.Return
}

func (a *clusterApp) dial() (*amqp.Connection, error) {
	url := a.urls[int(a.next.Add(1))%len(a.urls)]
	return amqp.DialConfig(url, amqp.Config{Heartbeat: 2 * time.Second, Dial: amqp.DefaultDial(2 * time.Second)})
}

func (a *clusterApp) declare(inbox string) error {
	conn, err := a.dial()
	if err != nil {
		return err
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		return err
	}
	if err := ch.ExchangeDeclare(inbox, "topic", true, false, false, false, nil); err != nil {
		return err
	}
	if _, err := ch.QueueDeclare(inbox, true, false, false, false, amqp.Table{"x-queue-type": string(clusterQueueType())}); err != nil {
		return err
	}
	return ch.QueueBind(inbox, "#", inbox, false, nil)
}

// send publishes messages to a peer, and waits until they are durable.
func (a *clusterApp) send(ctx context.Context, exchange string, to *linktest.Node, messages []broker.Outgoing) (err error) {
	defer func() {
		if err != nil && a.conn != nil {
			go a.conn.CloseDeadline(time.Now().Add(time.Second))
			a.conn = nil
		}
	}()
	if a.conn == nil {
		if a.conn, err = a.dial(); err != nil {
			return err
		}
		if a.ch, err = a.conn.Channel(); err != nil {
			return err
		}
		if err = a.ch.Confirm(false); err != nil {
			return err
		}
		a.confirmed = a.ch.NotifyPublish(make(chan amqp.Confirmation, 100))
		a.returned = a.ch.NotifyReturn(make(chan amqp.Return, 100))
	}
	for _, m := range messages {
		if err := a.ch.PublishWithContext(ctx, exchange, keyTo(to, m), true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Type: m.Type, ContentType: m.ContentType, Body: m.Body,
		}); err != nil {
			return err
		}
	}
	late := time.NewTimer(3 * time.Second)
	defer late.Stop()
	for range messages {
		select {
		case c, ok := <-a.confirmed:
			if !ok || !c.Ack {
				return errors.New("not confirmed")
			}
		case <-late.C:
			return errors.New("not confirmed in time")
		}
	}
	select {
	case r := <-a.returned:
		return errors.New(r.ReplyText)
	default:
		return nil
	}
}

// receive consumes a queue until ctx is done.
func (a *clusterApp) receive(ctx context.Context, queue string, do func([]byte)) {
	attempt := func() error {
		conn, err := a.dial()
		if err != nil {
			return err
		}
		defer func() { go conn.CloseDeadline(time.Now().Add(time.Second)) }()
		ch, err := conn.Channel()
		if err != nil {
			return err
		}
		if err := ch.Qos(100, 0, false); err != nil {
			return err
		}
		deliveries, err := ch.Consume(queue, "", false, false, false, false, nil)
		if err != nil {
			return err
		}
		for {
			select {
			case d, ok := <-deliveries:
				if !ok {
					return amqp.ErrClosed
				}
				do(d.Body)
				if err := d.Ack(false); err != nil {
					return err
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	}
	for ctx.Err() == nil {
		if attempt() != nil {
			time.Sleep(50 * time.Millisecond)
		}
	}
}

// keyTo returns the routing key of a message.
func keyTo(to *linktest.Node, m broker.Outgoing) string {
	_, debtor, creditor, err := smp.PeekIDs(m.Body)
	if err != nil {
		panic(err)
	}
	return smp.OutgoingRoutingKey(aa, to.Identity().Type, debtor, creditor)
}
