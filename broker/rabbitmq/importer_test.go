package rabbitmq

import (
	"errors"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// Imported messages are in the queue in their order, persistent, with the properties that a consumer reads
// and with the exchange and routing key of the application. Imported dead letters are listed with their
// reason and time. An error is returned if the queue is not there.
func TestImporter(t *testing.T) {
	s := rabbittest.Get(t)
	o, b := newTestClient(t, s), openTest(t, s.URL(), Options{})
	q := testPeer()
	queue := q.Queues[0]
	i := b.Import(queue)
	defer i.Close()
	messages := []Imported{
		{broker.Outgoing{Type: "PrepareTransfer", ContentType: "application/json", Body: []byte("1")}, q.Exchange, "1.2"},
		{broker.Outgoing{Type: "ConfigureAccount", ContentType: "text/plain", Body: []byte("2")}, "", ""},
	}
	if err := i.Put(testContext(t), messages); !errors.Is(err, broker.ErrNoQueue) {
		t.Errorf("without a queue: got error %v, want %v", err, broker.ErrNoQueue)
	}
	if err := b.Bind(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	if err := i.Put(testContext(t), make([]Imported, maxPublish+1)); !errors.Is(err, ErrInvalid) {
		t.Errorf("too many messages: got error %v, want %v", err, ErrInvalid)
	}
	at := time.Now().Add(-time.Hour)
	letter := broker.DeadLetter{ID: "1", At: at, Reason: "a reason", Outgoing: messages[0].Outgoing}
	for range 2 {
		if err := errors.Join(i.Put(testContext(t), messages), i.PutDeadLetters(testContext(t), []broker.DeadLetter{letter})); err != nil {
			t.Fatal(err)
		}
	}
	for n, d := range o.take(queue, 4) {
		m := messages[n%2]
		if d.Type != m.Type || d.ContentType != m.ContentType || string(d.Body) != string(m.Body) || d.DeliveryMode != amqp.Persistent {
			t.Errorf("message %d is %+v", n, d)
		}
		exchange, _ := d.Headers[headerExchange].(string)
		key, _ := d.Headers[headerRoutingKey].(string)
		if exchange != m.Exchange || key != m.RoutingKey {
			t.Errorf("message %d has the headers %v", n, d.Headers)
		}
	}
	found := asideIn(t, b, queue)
	if len(found) != 2 {
		t.Fatalf("%d dead letters, want 2", len(found))
	}
	for _, m := range found {
		if m.Reason != letter.Reason || m.At.Unix() != at.Unix() || m.Type != letter.Type || string(m.Body) != "1" {
			t.Errorf("dead letter %+v", m)
		}
	}
}
