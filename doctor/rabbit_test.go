package doctor

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link"
	"peerlink/link/linktest"
)

func TestMain(m *testing.M) { os.Exit(rabbittest.Run(m)) }

// rabbitFixture is a [fixture] on RabbitMQ.
type rabbitFixture struct {
	*fixture
	rabbit  *RabbitMQ
	channel *amqp.Channel
	binding broker.PeerBinding
	queue   string
}

func newRabbitFixture(t *testing.T, server *rabbittest.Server) *rabbitFixture {
	t.Helper()
	f := &rabbitFixture{fixture: newFixture(t), rabbit: &RabbitMQ{URL: server.URL(), Pattern: link.DefaultQueuePattern, DeadLetterSuffix: ".XQ"}}
	f.cfg.Broker = f.rabbit
	f.peer.Start()
	p, err := f.node.Peer(f.peerID())
	f.must(err)
	f.binding, err = bindingOf(f.node.Dir, p, f.rabbit.Pattern)
	f.must(err)
	f.queue = f.binding.Queues[0]
	b, err := rabbitmq.Open(server.URL(), rabbitmq.Options{Logger: f.node.Log.Logger()})
	f.must(err)
	f.must(b.Bind(t.Context(), f.binding))
	f.must(b.Close())
	conn, err := amqp.Dial(server.URL())
	f.must(err)
	t.Cleanup(func() { conn.Close() })
	f.channel, err = conn.Channel()
	f.must(err)
	f.must(f.channel.ExchangeDeclare("accounts_in", "topic", true, false, false, false, nil))
	return f
}

// managed returns the URL of a management plugin, as far as it is used, that gives these answers about queues.
func (f *rabbitFixture) managed(status int, queue string) string {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "guest" || password != "guest" || !strings.HasPrefix(r.URL.EscapedPath(), "/api/queues/%2F/") && r.URL.Path != "/api/whoami" {
			status = http.StatusNotFound
		}
		w.WriteHeader(status)
		io.WriteString(w, queue)
	}))
	f.Cleanup(s.Close)
	return s.URL
}

// Faults of RabbitMQ are found, as the first, with their remedies. Nothing is declared, and the password appears nowhere.
func TestRabbitFaults(t *testing.T) {
	server := rabbittest.Get(t)
	for _, c := range []struct {
		fault
		make func(f *rabbitFixture)
	}{
		{fault{name: "all is well"}, func(*rabbitFixture) {}},
		{fault{"not reachable", nil, "broker", "connection refused", "check_running", false}, func(f *rabbitFixture) { f.rabbit.URL = "amqp://guest:secret@" + linktest.FreeAddress(f.T) }},
		{fault{"wrong password", nil, "broker", "password", "--broker", false}, func(f *rabbitFixture) { f.rabbit.URL = server.URLFor("guest:secret") }},
		{fault{"no such vhost", nil, "broker", "", "virtual host", false}, func(f *rabbitFixture) { f.rabbit.URL += "/nowhere" }},
		{fault{"no inbox", nil, "inbox", "accounts_in", "application", false}, func(f *rabbitFixture) { f.must(f.channel.ExchangeDelete("accounts_in", false, false)) }},
		{fault{"no queue", nil, "objects", "missing in RabbitMQ: queue peer.", "start the service", false}, func(f *rabbitFixture) {
			_, err := f.channel.QueueDelete(f.queue, false, false, false)
			f.must(err)
		}},
		{fault{"no exchange", nil, "objects", "exchange aa.x.", "start the service", false}, func(f *rabbitFixture) {
			f.must(f.channel.ExchangeDelete(rabbitmq.PeerExchange(f.binding), false, false))
		}},
		{fault{"set aside", nil, "messages", "1 are set aside", "queue show", false}, func(f *rabbitFixture) {
			_, err := f.channel.PublishWithDeferredConfirmWithContext(f.Context(), "", f.queue+".XQ", true, false, amqp.Publishing{Body: []byte("x")})
			f.must(err)
			f.awaitMessages(f.queue + ".XQ")
		}},
		{fault{"a policy drops messages", nil, "limits", `a policy sets message-ttl 86400000: messages are moved to where its dead-letter exchange leads after a number of milliseconds (policy "ttl")`, "list_policies", false}, func(f *rabbitFixture) {
			f.rabbit.Management = f.managed(200, `{"type":"classic","policy":"ttl","arguments":{"x-dead-letter-exchange":""},"effective_policy_definition":{"message-ttl":86400000}}`)
		}},
		{fault{name: "no policy"}, func(f *rabbitFixture) {
			f.rabbit.Management = f.managed(200, `{"type":"quorum","policy":null,"arguments":{},"effective_policy_definition":[]}`)
		}},
		{fault{"no access to the management plugin", nil, "policies", "401", "set_user_tags", false}, func(f *rabbitFixture) { f.rabbit.Management = f.managed(401, "") }},
	} {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			f := newRabbitFixture(t, server)
			c.make(f)
			if c.want != "" {
				checkFirst(f.fixture, c.fault)
				return
			}
			r, err := Run(t.Context(), f.cfg)
			f.must(err)
			if first := r.First(); first != nil {
				t.Errorf("%+v", first)
			}
		})
	}
}

// awaitMessages waits until a queue has a message.
func (f *rabbitFixture) awaitMessages(queue string) {
	linktest.Eventually(f.T, "a message in "+queue, func() error {
		q, err := f.channel.QueueDeclarePassive(queue, true, false, false, false, nil)
		if err == nil && q.Messages == 0 {
			err = context.DeadlineExceeded
		}
		return err
	})
}
