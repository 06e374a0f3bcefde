package rabbitmq

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
)

// A queue full of large messages does not use up the memory: a consumer holds a bounded
// number of bytes, whatever RabbitMQ has sent ahead. All messages are delivered, in order,
// including small ones between them.
func TestLargeMessages(t *testing.T) {
	s := rabbittest.Get(t)
	o := newTestClient(t, s)
	b := openTest(t, s.URL(), Options{})
	for _, kind := range []QueueType{Classic, Quorum} {
		t.Run(string(kind), func(t *testing.T) {
			queue := "large" + suffix()
			_, err := o.QueueDeclare(queue, true, false, false, false, amqp.Table{"x-queue-type": string(kind)})
			o.check(err)
			const count, size = 300, 1 << 19
			body := bytes.Repeat([]byte("x"), size)
			for n := range count {
				message := amqp.Publishing{Headers: amqp.Table{"n": int64(n)}, Type: fmt.Sprint(n), Body: body}
				if n%10 == 0 {
					message.Body = nil
				}
				o.check(o.send("", queue, message))
			}
			body = nil
			runtime.GC()
			var before, now runtime.MemStats
			runtime.ReadMemStats(&before)
			c, err := b.Consume(testContext(t), queue)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { c.Close() }()
			// RabbitMQ sends all messages to the first consumer. Until that has received them, they
			// are in buffers of the library.
			eventually(t, "receiving", func() error {
				inner := c.(*consumer)
				inner.mu.Lock()
				defer inner.mu.Unlock()
				if inner.unacked.lastReceived < count {
					return fmt.Errorf("%d of %d messages have arrived", inner.unacked.lastReceived, count)
				}
				return nil
			})
			peak := uint64(0)
			for n := 0; n < count; {
				ds, err := c.Next(testContext(t), 256)
				if errors.Is(err, broker.ErrReopen) {
					o.check(c.Close())
					if c, err = b.Consume(testContext(t), queue); err == nil {
						continue
					}
				}
				if err != nil {
					t.Fatal(err)
				}
				for _, d := range ds {
					if d.Type != fmt.Sprint(n) {
						t.Fatalf("got message %s, want %d", d.Type, n)
					}
					n++
				}
				inner := c.(*consumer)
				inner.mu.Lock()
				if held := inner.unacked.bytes; held > maxWindowBytes+2*size {
					t.Errorf("%d bytes are held", held)
				}
				inner.mu.Unlock()
				runtime.GC()
				runtime.ReadMemStats(&now)
				peak = max(peak, now.HeapAlloc)
				if err := c.Confirm(ds[len(ds)-1].Tag); err != nil {
					t.Fatal(err)
				}
			}
			// Messages that RabbitMQ has sent ahead and that the consumer has not dropped yet
			// are in memory for a short time, and there are more of them on a busy machine.
			if grown := int64(peak) - int64(before.HeapAlloc); grown > count*size/2 {
				t.Errorf("the heap has grown by %d MiB", grown>>20)
			}
		})
	}
}

// A consumer with large messages accepts none once the bound is exceeded. As soon as it
// holds none, it is replaced by a consumer with a lower prefetch count. That count is raised
// again only after enough small messages, and all messages are accepted meanwhile.
func TestPrefetchFollowsSize(t *testing.T) {
	const most = 100
	large, small := amqp.Delivery{Body: make([]byte, maxWindowBytes/20)}, amqp.Delivery{Body: make([]byte, 100)}
	w, l := window{prefetch: most}, newUnacked()
	take := func(d amqp.Delivery) bool {
		d.DeliveryTag = l.lastReceived + 1
		if !w.accept(d, &l, most) {
			return false
		}
		if err := l.add(d); err != nil {
			t.Fatal(err)
		}
		return true
	}
	held := 0
	for ; take(large); held++ {
		if w.mustReopen(&l) {
			t.Fatal("the consumer ends without a reason")
		}
	}
	if held != 19 || w.nextPrefetch != held/2 {
		t.Errorf("%d messages are held, the next prefetch count is %d", held, w.nextPrefetch)
	}
	if take(small) {
		t.Error("a message is accepted after one that was not")
	}
	if w.mustReopen(&l) {
		t.Error("the consumer ends while it holds messages")
	}
	l.removeHeld(held)
	if !w.mustReopen(&l) {
		t.Error("the consumer does not end when it holds no more messages")
	}

	w, l = window{prefetch: minPrefetch}, newUnacked()
	for range 4*minPrefetch - 1 {
		if !take(small) || w.nextPrefetch != 0 {
			t.Fatalf("the next prefetch count is %d, after %d messages", w.nextPrefetch, w.accepted)
		}
	}
	if !take(small) || w.nextPrefetch != most || w.discards() {
		t.Errorf("the next prefetch count is %d, after %d messages", w.nextPrefetch, w.accepted)
	}
	if !take(small) {
		t.Error("a message is not accepted before the prefetch count is raised")
	}

	// One message is accepted whatever its size, and no prefetch count is below the
	// minimum.
	w, l = window{prefetch: most}, newUnacked()
	if !take(amqp.Delivery{Body: make([]byte, maxWindowBytes+1)}) || take(small) || w.nextPrefetch != minPrefetch {
		t.Errorf("%d messages are held, the next prefetch count is %d", len(l.held), w.nextPrefetch)
	}
}

// A message is accepted if exactly the bound is held with it. The next prefetch count is half of
// the messages held at the bound, of which excluded ones do not count, nor as many as the last
// consumer has left excluded: these have a room of their own.
func TestWindowBound(t *testing.T) {
	const most, held, excluded = 100, 32, 10 // maxWindowBytes is a multiple of held
	d := amqp.Delivery{Body: make([]byte, maxWindowBytes/held-bytesOf(amqp.Delivery{}))}
	for _, before := range []int{0, 2 * excluded} {
		w, u := window{prefetch: most, excludedBefore: excludedSize{count: before}}, newUnacked()
		for d.DeliveryTag = 1; d.DeliveryTag <= excluded; d.DeliveryTag++ {
			if err := u.add(d); err != nil {
				t.Fatal(err)
			}
			u.deliver(1)
			if err := u.exclude(d.DeliveryTag); err != nil {
				t.Fatal(err)
			}
		}
		for ; w.accept(d, &u, most); d.DeliveryTag++ {
			if err := u.add(d); err != nil {
				t.Fatal(err)
			}
		}
		others := held - max(0, before-excluded)
		if len(u.held) != held || u.bytes-u.excludedBytes != maxWindowBytes || w.nextPrefetch != others/2 {
			t.Errorf("with %d and %d excluded messages: %d others with %d bytes are held, the next prefetch count is %d, want %d",
				before, excluded, len(u.held), u.bytes-u.excludedBytes, w.nextPrefetch, others/2)
		}
	}
}

// Excluded messages leave room for others: when they take more than half of the prefetch count, the consumer
// ends, and no further message is moved before; the next one has a count with room for as many again. Their size is bounded, and others are
// accepted up to the bound that they have without excluded ones.
func TestExcludedMessages(t *testing.T) {
	const most = 100
	d := amqp.Delivery{Body: make([]byte, 5000)}
	var before excludedSize
	var w window
	var u unacked
	take := func() bool {
		d.DeliveryTag = u.lastReceived + 1
		if !w.accept(d, &u, most) {
			return false
		}
		if err := u.add(d); err != nil {
			t.Fatal(err)
		}
		return true
	}
	reopen := func() {
		before = w.excludedAtEnd(&u)
		w, u = window{prefetch: most, excludedBefore: before}, newUnacked()
	}
	excludeFirst := func() error {
		u.deliver(1)
		err := u.excludeWithin(u.held[0].DeliveryTag, maxExcludedBytes)
		if err == nil {
			w.recordExcluded(&u)
		}
		return err
	}
	var err error
	for reopened := 0; err == nil; reopened++ {
		if reopened > 10 {
			t.Fatal("the queue is opened anew again and again")
		}
		reopen()
		for n := w.total(); n > 0 && take(); n-- {
		}
		for err == nil && len(u.held) > 0 {
			err = excludeFirst()
		}
		if err == nil && !w.mustReopen(&u) {
			t.Fatalf("the consumer does not end although %d of %d messages are excluded", len(u.excluded), w.total())
		}
		if err == nil && w.allowsMove(&u) {
			t.Fatal("further messages may be moved, and delay the end of the consumer")
		}
	}
	if !errors.Is(err, broker.ErrTooManyExcluded) || u.excludedBytes > maxExcludedBytes || u.excludedBytes+bytesOf(d) <= maxExcludedBytes {
		t.Errorf("%d bytes are excluded, the bound is %d: %v", u.excludedBytes, maxExcludedBytes, err)
	}
	if tag := slices.Min(slices.Collect(maps.Keys(u.excluded))); u.lowestExcluded != tag {
		t.Errorf("the lowest excluded tag is %d, want %d", u.lowestExcluded, tag)
	}

	reopen()
	for range before.count {
		if !take() {
			t.Fatal("messages that were excluded before do not fit")
		}
	}
	if n := w.total() - len(u.held); n < most {
		t.Errorf("there is room for %d other messages, want %d", n, most)
	}
	for range before.count {
		if err := excludeFirst(); err != nil {
			t.Fatal(err)
		}
	}
	for take() {
	}
	if n := u.bytes - u.excludedBytes; n > maxWindowBytes || n+2*bytesOf(d) <= maxWindowBytes {
		t.Errorf("%d bytes of others are held, the bound is %d", n, maxWindowBytes)
	}
}
