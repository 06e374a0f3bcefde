package linktest

import (
	"context"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// Memory is a broker that keeps its messages in memory, for very many nodes.
type Memory struct {
	mu     sync.Mutex
	queues map[string]*memoryQueue
	inbox  map[string]bool // bodies of the received messages
}

// memoryQueue leads to a peer.
type memoryQueue struct {
	first    uint64 // the tag of waiting[0]
	waiting  []broker.Outgoing
	consumed bool
	changed  wait.Broadcast // notified when there are more messages
}

// NewMemory returns a broker without queues and messages.
func NewMemory() *Memory {
	return &Memory{queues: make(map[string]*memoryQueue), inbox: make(map[string]bool)}
}

// Put puts messages into a queue, which is made if necessary.
func (m *Memory) Put(queue string, messages ...broker.Outgoing) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queue(queue)
	q.waiting = append(q.waiting, messages...)
	q.changed.Notify()
}

// Left returns how many messages are in all queues.
func (m *Memory) Left() (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, q := range m.queues {
		n += len(q.waiting)
	}
	return n
}

// Received returns how many different messages were received.
func (m *Memory) Received() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.inbox)
}

func (m *Memory) queue(name string) *memoryQueue {
	q := m.queues[name]
	if q == nil {
		q = &memoryQueue{first: 1}
		m.queues[name] = q
	}
	return q
}

func (m *Memory) Bind(_ context.Context, q broker.PeerBinding) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range q.Queues {
		m.queue(name)
	}
	return nil
}

func (m *Memory) Unbind(context.Context, broker.PeerBinding) error { return nil }

func (m *Memory) CheckInUse(_ context.Context, queue string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if q := m.queues[queue]; q != nil && q.consumed {
		return broker.ErrInUse
	}
	return nil
}

func (m *Memory) Consume(_ context.Context, queue string) (broker.Consumer, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	q := m.queues[queue]
	switch {
	case q == nil:
		return nil, broker.ErrNoQueue
	case q.consumed:
		return nil, broker.ErrInUse
	}
	q.consumed = true
	return &memoryConsumer{m: m, q: q, delivered: q.first - 1}, nil
}

func (m *Memory) Publish(_ context.Context, confirmed func(n uint64, err error)) (broker.Publisher, error) {
	return &memoryPublisher{m: m, confirmed: confirmed}, nil
}

func (m *Memory) Health() error { return nil }

func (m *Memory) Close() error { return nil }

type memoryConsumer struct {
	m         *Memory
	q         *memoryQueue
	delivered uint64 // the last tag delivered
}

func (c *memoryConsumer) Next(ctx context.Context, limit int) ([]broker.Delivery, error) {
	for {
		list, changed := c.take(limit)
		if len(list) > 0 {
			return list, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (c *memoryConsumer) take(limit int) (list []broker.Delivery, changed <-chan struct{}) {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	for i := c.delivered + 1 - c.q.first; i < uint64(len(c.q.waiting)) && len(list) < limit; i++ {
		c.delivered++
		list = append(list, broker.Delivery{Tag: c.delivered, Outgoing: c.q.waiting[i]})
	}
	return list, c.q.changed.Next()
}

func (c *memoryConsumer) Confirm(tag uint64) error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	if tag >= c.q.first {
		c.q.waiting = c.q.waiting[tag+1-c.q.first:]
		c.q.first = tag + 1
	}
	return nil
}

// Exclude always fails: it is called only for messages that cannot be sent, and tests with
// this broker have none.
func (c *memoryConsumer) Exclude(uint64) error { return broker.ErrClosed }

func (c *memoryConsumer) DeadLetter(context.Context, uint64, string) error { return broker.ErrClosed }

func (c *memoryConsumer) Close() error {
	c.m.mu.Lock()
	defer c.m.mu.Unlock()
	c.q.consumed = false
	return nil
}

type memoryPublisher struct {
	m         *Memory
	confirmed func(n uint64, err error)
	count     uint64
}

func (p *memoryPublisher) Publish(_ context.Context, in *broker.Incoming) error {
	p.m.mu.Lock()
	p.m.inbox[string(in.Body)] = true
	p.m.mu.Unlock()
	p.count++
	p.confirmed(p.count, nil)
	return nil
}

func (p *memoryPublisher) Close() error { return nil }
