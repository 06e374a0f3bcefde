package rabbitmq

import (
	"context"
	"strings"
	"testing"
	"time"

	"peerlink/broker/rabbitmq/rabbittest"
)

// Trouble is what keeps us from RabbitMQ now: none before anybody has tried, the
// reason without the password while there is no connection, none once there is
// one.
func TestTrouble(t *testing.T) {
	b := openTest(t, "amqp://me:secret@127.0.0.1:1", Options{})
	if err := b.Trouble(); err != nil {
		t.Errorf("before: %v", err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	done := make(chan error, 1)
	go func() { done <- b.Declare(ctx, testPeer()) }()
	deadline := time.Now().Add(30 * time.Second)
	for b.Trouble() == nil && time.Now().Before(deadline) {
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-done
	if err := b.Trouble(); err == nil || !strings.Contains(err.Error(), "refused") || strings.Contains(err.Error(), "secret") {
		t.Errorf("without RabbitMQ: %v", err)
	}

	s := rabbittest.Get(t)
	b = openTest(t, s.URL(), Options{})
	q := testPeer()
	if err := b.Declare(testContext(t), q); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Release(context.Background(), q) })
	if err := b.Trouble(); err != nil {
		t.Errorf("connected: %v", err)
	}
}
