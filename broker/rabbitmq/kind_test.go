package rabbitmq

import (
	"fmt"
	"os"
	"strings"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
)

// The type and delivery limit of an existing queue are determined correctly, regardless of
// how it was declared and of the default type. Determining them creates no queue. The log
// has each limit once.
func TestKind(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	major := majorOf(o.conn.Properties["version"].(string))
	byDefault := kind{queueType: Classic}
	if os.Getenv("RABBITMQ_DEFAULT_QUEUE_TYPE") == string(Quorum) && major >= 4 {
		byDefault.queueType = Quorum
	}
	for _, test := range []struct {
		args    amqp.Table
		want    kind
		wantLog string
	}{
		{nil, byDefault, ""},
		{amqp.Table{"x-queue-type": "classic"}, kind{queueType: Classic}, ""},
		{amqp.Table{"x-queue-type": "quorum"}, kind{queueType: Quorum}, "limit=20"},
		{amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 7}, kind{queueType: Quorum, limit: 7}, "level=INFO"},
		{amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": 2}, kind{queueType: Quorum, limit: 2}, "level=WARN"},
		{amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": minLimit}, kind{queueType: Quorum, limit: minLimit}, "level=INFO"},
		{amqp.Table{"x-queue-type": "quorum", "x-delivery-limit": -1}, kind{queueType: Quorum, limit: noLimit}, ""},
	} {
		log := new(logBuffer)
		b := openTest(t, s.URL(), Options{Logger: log.logger()})
		q := testPeer()
		queue := q.Queues[0]
		args := deadLettering(queue)
		for name, value := range test.args {
			args[name] = value
		}
		determine := func() (k kind) {
			o.check(b.withDeclarer(testContext(t), func(d declarer) error { k = d.probeKind(queue); return nil }))
			return k
		}
		if k := determine(); k != (kind{}) {
			t.Errorf("%v: a queue that does not exist: got %+v, want the zero value", test.args, k)
		}
		_, err := o.QueueDeclare(queue, true, false, false, false, args) // is not refused, as it would be if probeKind had declared it
		o.check(err)
		if k := determine(); k != test.want {
			t.Errorf("%v: got %+v, want %+v", test.args, k, test.want)
		}
		o.check(b.Bind(testContext(t), q))
		o.check(b.Bind(testContext(t), q))
		const report = "is a quorum queue"
		if test.wantLog == "limit=20" && major < 4 || test.args == nil && byDefault.queueType == Quorum {
			continue // see the case with this type
		}
		if strings.Count(log.String(), report) != strings.Count(test.wantLog, "=") || !strings.Contains(log.String(), test.wantLog) {
			t.Errorf("%v: the log must have %q, once:\n%s", test.args, test.wantLog, log)
		}
	}
}

// The kind of a queue is determined once on a connection, and again after every loss of it: the
// queue may have been declared as another one meanwhile.
func TestKindAfterReconnect(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	queue := "kind" + suffix()
	declare := func(queueType QueueType) {
		args := deadLettering(queue)
		args["x-queue-type"] = string(queueType)
		_, err := o.QueueDeclare(queue, true, false, false, false, args)
		o.check(err)
	}
	determine := func() (queueType QueueType, err error) {
		err = b.withDeclarer(testContext(t), func(d declarer) error { queueType = d.kind(queue).queueType; return nil })
		return queueType, err
	}
	declare(Classic)
	if got, err := determine(); got != Classic || err != nil {
		t.Errorf("got %q, %v, want %q", got, err, Classic)
	}
	_, err := o.QueueDelete(queue, false, false, false)
	o.check(err)
	declare(Quorum)
	if got, err := determine(); got != Classic || err != nil {
		t.Errorf("the kind was determined twice on one connection: got %q, %v", got, err)
	}
	b.declaring.latest().cut()
	eventually(t, "determining the kind again", func() error {
		if got, err := determine(); got != Quorum || err != nil {
			return fmt.Errorf("got %q, %v, want %q", got, err, Quorum)
		}
		return nil
	})
}
