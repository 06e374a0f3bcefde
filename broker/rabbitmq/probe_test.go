package rabbitmq

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
)

// addUser makes a user of RabbitMQ, and returns the URL for it.
func addUser(t *testing.T, s *rabbittest.Server, name, configure, write, read string) (url string) {
	t.Helper()
	for _, args := range [][]string{{"add_user", name, "secret"}, {"set_permissions", name, configure, write, read}} {
		if err := s.Control(args...); err != nil {
			t.Fatal(err)
		}
	}
	return s.URLFor(name + ":secret")
}

// lastRefusal waits until no probe is in progress, and returns the time of the last refusal.
func (p *prober) lastRefusal() (at time.Time, ok bool) {
	for !p.busy.CompareAndSwap(false, true) {
		time.Sleep(time.Millisecond)
	}
	defer p.busy.Store(false)
	if p.lastRefused == nil {
		return time.Time{}, false
	}
	return p.lastRefused.at, true
}

// A probe that RabbitMQ does not permit, whether its queue or publishing, is logged once,
// and tried again on a new connection, and after a pause. When RabbitMQ permits it, an
// alarm is noticed again.
func TestProbeRefused(t *testing.T) {
	s := rabbittest.Get(t)
	const noProbe, all = `^(?!amq\.)`, ".*"
	for _, tt := range []struct{ name, configure, write, permission string }{
		{"no_probe_queue", noProbe, all, "amq.gen-*"},
		{"no_probe_message", all, noProbe, "amq.default"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			log := new(logBuffer)
			b := openTest(t, addUser(t, s, tt.name, tt.configure, tt.write, all), Options{Logger: log.logger()})
			o := newTestClient(t, s)
			o.check(s.Control("set_permissions", tt.name, all, all, all))
			bindAndConsume(t, b) // whose dead-letter exchange is amq.default
			o.check(s.Control("set_permissions", tt.name, tt.configure, tt.write, all))
			refused := func() time.Time {
				t.Helper()
				var at time.Time
				eventually(t, "a refusal", func() error {
					o.check(b.Health())
					var ok bool
					if at, ok = b.prober.lastRefusal(); !ok {
						return errors.New("no probe was refused")
					}
					return nil
				})
				return at
			}
			first := refused()
			o.check(b.Health())
			if again := refused(); again != first {
				t.Error("another probe follows immediately on the same connection")
			}
			b.publishing.latest().cut()
			eventually(t, "a probe on a new connection", func() error {
				_ = b.Health()
				if at, ok := b.prober.lastRefusal(); !ok || at == first {
					return fmt.Errorf("refused %v, at %v", ok, at)
				}
				return nil
			})
			if n := strings.Count(log.String(), "level=WARN msg=\"RabbitMQ does not permit probes"); n != 1 {
				t.Errorf("the refusal is logged %d times, want once:\n%s", n, log)
			}
			if _, text, _ := strings.Cut(log.String(), "RabbitMQ does not permit probes"); !strings.Contains(text, tt.permission+`"`) {
				t.Errorf("the log does not name the permission for %s:\n%s", tt.permission, log)
			}

			o.check(s.Control("set_permissions", tt.name, all, all, all))
			b.prober.pause = 0
			o.check(s.Control("set_vm_memory_high_watermark", "0.0001"))
			defer func() { o.check(s.Control("set_vm_memory_high_watermark", "0.4")) }()
			eventually(t, "noticing the alarm", func() error {
				if err := b.Health(); !errors.Is(err, errBlocked) {
					return fmt.Errorf("trouble: got %v, want ErrBlocked", err)
				}
				return nil
			})
		})
	}
}

// A user who may declare the queue for probes, but not publish to it, leaves no more queues in
// RabbitMQ with each probe: they would stay as long as the connection.
func TestRefusedProbesLeaveNoQueues(t *testing.T) {
	s := rabbittest.Get(t)
	const noProbe, all = `^(?!amq\.)`, ".*"
	b := openTest(t, addUser(t, s, "no_probes", all, all, all), Options{})
	o := newTestClient(t, s)
	bindAndConsume(t, b)
	o.check(s.Control("set_permissions", "no_probes", all, noProbe, all))
	queues := func() int {
		t.Helper()
		text, err := s.ControlOutput("list_queues", "--quiet", "name")
		o.check(err)
		return strings.Count(text, "amq.gen-")
	}
	before := queues()
	b.prober.pause = 0
	var last time.Time
	for range 4 {
		eventually(t, "a refusal", func() error {
			o.check(b.Health())
			at, ok := b.prober.lastRefusal()
			if !ok || at.Equal(last) {
				return errors.New("no further probe was refused")
			}
			last = at
			return nil
		})
	}
	if n := queues() - before; n > 1 {
		t.Errorf("%d queues were left, want at most 1", n)
	}
}

// With the permissions in the handbook, all operations of a service and of the commands work
// without a warning.
func TestPermissions(t *testing.T) {
	s := rabbittest.Get(t)
	handbook, err := os.ReadFile("../../docs/queues.md")
	if err != nil {
		t.Fatal(err)
	}
	_, line, _ := strings.Cut(string(handbook), "\n    rabbitmqctl set_permissions peerlink '")
	line, _, _ = strings.Cut(line, "'\n")
	permissions := strings.Split(line, "' '")
	if len(permissions) != 3 {
		t.Fatalf("the handbook has permissions %q", permissions)
	}
	log := new(logBuffer)
	b := openTest(t, addUser(t, s, "peerlink", permissions[0], permissions[1], permissions[2]), Options{Logger: log.logger(), DeadLetterSuffix: ".aside"})
	o := newTestClient(t, s)
	for _, tt := range []struct{ prefix, exchange, inbox string }{
		{"aa", "to_creditors", "accounts_in"}, {"aa", "to_debtors", "accounts_in"}, {"ca", "creditors_out", "creditors_in"}, {"da", "debtors_out", "debtors_in"},
	} {
		q := testPeer()
		q.Prefix, q.Exchange, q.Fanout = tt.prefix, tt.exchange, tt.prefix == "da"
		if q.Fanout {
			q.BindingKey = ""
		}
		o.check(b.Bind(testContext(t), q))
		key := q.PeerID + ".1"
		o.check(o.send(q.Exchange, key, amqp.Publishing{Type: "T", Body: []byte("1")}, amqp.Publishing{Type: "T", Body: []byte("2")}))
		c, err := b.Consume(testContext(t), q.Queues[0])
		o.check(err)
		setAsideNext(t, c, "reason")
		setAsideNext(t, c, "reason")
		checkLengths(t, c)
		var ids []string
		for m, err := range b.List(testContext(t), q.Queues[0]) {
			o.check(err)
			ids = append(ids, m.ID)
		}
		if len(ids) != 2 {
			t.Fatalf("%d dead letters, want 2", len(ids))
		}
		_, err = b.Info(testContext(t), q.Queues[0])
		o.check(err)
		_, err = b.Retry(testContext(t), q.Queues[0], ids[:1])
		o.check(err)
		_, err = b.Drop(testContext(t), q.Queues[0], ids[1:])
		o.check(err)
		ds, err := c.Next(testContext(t), 1)
		o.check(err)
		o.check(c.Confirm(ds[0].Tag))
		o.inbox(tt.inbox)
		p := openStream(t, b)
		o.check(p.Publish(testContext(t), incoming(tt.inbox, "", "1")))
		if n, err := p.wait(1); n != 1 || err != nil {
			t.Errorf("%d confirmed, %v", n, err)
		}
		_, err = o.QueueDelete(tt.inbox, false, false, false)
		o.check(err)
		former := q
		former.Queues = []string{q.Queues[0] + "0"}
		o.check(b.Bind(testContext(t), former)) // unbinds
		o.check(c.Close())
		o.check(b.Unbind(testContext(t), former))
	}
	for range 2 { // the first one's permission to publish is known to the second one
		if _, refused := b.prober.lastRefusal(); refused {
			t.Error("the probe is refused")
		}
		o.check(b.Health())
	}
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, "level=WARN") && !strings.Contains(line, "message set aside") || strings.Contains(line, "level=ERROR") {
			t.Error(line)
		}
	}
}
