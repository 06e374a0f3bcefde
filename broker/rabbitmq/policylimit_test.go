package rabbitmq

import (
	"testing"

	"peerlink/broker/rabbitmq/rabbittest"
)

// A policy with a low delivery limit, which AMQP does not show, causes no loss: neither
// listing dead letters, nor a peer that ends each of its connections immediately, brings a
// message to the limit.
func TestPolicyWithDeliveryLimit(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	o.check(s.Control("set_policy", "low", `^limited`, `{"delivery-limit":3}`, "--apply-to", "queues"))
	defer s.Control("clear_policy", "low")
	limit := defaultLimit
	if version, _ := o.conn.Properties["version"].(string); majorOf(version) >= 4 {
		limit = noLimit // the policy overrides it, too
	}
	const count, rounds = 10, 6
	for _, aside := range []bool{true, false} {
		b := openTest(t, s.URL(), Options{})
		queue := limited(t, o, limit, count, aside)
		for range rounds {
			if aside {
				for _, err := range b.List(testContext(t), queue) {
					o.check(err)
				}
				continue
			}
			c, err := b.Consume(testContext(t), queue)
			o.check(err)
			nextAll(t, c, count)
			o.check(c.Close())
		}
		left, other := referenceDeadLetterQueue(queue), queue
		if !aside {
			left, other = other, left
		}
		if n, m := len(o.take(left, -1)), len(o.take(other, -1)); n != count || m != 0 {
			t.Errorf("set aside %t: %d of %d messages are left, and %d are in the other queue", aside, n, count, m)
		}
	}
}
