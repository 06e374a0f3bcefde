package local

import (
	"context"
	"strconv"
	"strings"
	"sync"

	"peerlink/stomp"
)

// Message is a message that a [Client] has received.
type Message struct {
	Type       string // SMP message type
	RoutingKey string
	Headers    []stomp.Header // all headers of the MESSAGE, including the application headers
	Body       []byte
	// Redelivered reports whether the message may have been delivered before.
	Redelivered bool
	// Missed is the number of copies that were dropped between the previous copy and this one.
	Missed uint64

	ack string // ack header, for ACK; empty with [AckAuto]
}

// ClientSubscription is a subscription of a [Client]. It lasts as long as the
// connection.
type ClientSubscription struct {
	client   *Client
	messages chan Message
	begun    chan struct{} // closed when the first message arrives
	begin    func()        // closes begun, once
}

// Subscribe subscribes to "/queue/<inbox>", or to "/exchange/<inbox>/#" for copies,
// which require [AckAuto]. prefetch is the maximum number of unacknowledged messages; 0
// means the door's default. After an error, the Client can only be closed.
func (c *Client) Subscribe(ctx context.Context, destination string, prefetch int, ack AckMode) (*ClientSubscription, error) {
	if prefetch == 0 {
		prefetch = defaultPrefetch
	}
	begun := make(chan struct{})
	sub := &ClientSubscription{
		client: c, messages: make(chan Message, min(max(prefetch, 0), maxPrefetch)),
		begun: begun, begin: sync.OnceFunc(func() { close(begun) }),
	}
	c.mu.Lock()
	id := strconv.Itoa(len(c.subscriptions))
	c.subscriptions[id] = sub
	c.mu.Unlock()
	// Messages may come before the receipt, which could not be read if they were not taken out.
	err := c.await(ctx, sub.begun, stomp.NewFrame("SUBSCRIBE",
		"id", id,
		"destination", destination,
		"ack", string(ack),
		"prefetch-count", strconv.Itoa(prefetch),
	))
	if err != nil {
		return nil, err
	}
	return sub, nil
}

// Next waits for the next message. The error is the cause of the end of ctx, or why the
// connection has ended. Messages received before the connection has ended are returned
// first.
func (s *ClientSubscription) Next(ctx context.Context) (Message, error) {
	select {
	case m := <-s.messages:
		return m, nil
	default:
	}
	select {
	case m := <-s.messages:
		return m, nil
	case <-ctx.Done():
		return Message{}, context.Cause(ctx)
	case <-s.client.done:
	}
	select {
	case m := <-s.messages:
		return m, nil
	default:
		return Message{}, s.client.endErr()
	}
}

// Ack acknowledges a message, and with [AckClient] all messages before it. It does not
// block, so a confirmed function may call it; [Client.Disconnect] waits until the message
// is removed from the inbox. The error is why the connection has ended.
func (s *ClientSubscription) Ack(m Message) error {
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.queuedAcks = append(c.queuedAcks, m.ack)
	c.ackSignal.Notify()
	return nil
}

// messageFrom returns the message of a MESSAGE frame.
func messageFrom(f *stomp.Frame) Message {
	m := Message{Headers: f.Headers, Body: f.Body}
	m.Type, _ = f.Get("type")
	m.ack, _ = f.Get("ack")
	destination, _ := f.Get("destination")
	m.RoutingKey = destination[strings.LastIndexByte(destination, '/')+1:]
	redelivered, _ := f.Get("redelivered")
	m.Redelivered = redelivered == "true"
	missed, _ := f.Get("missed")
	m.Missed, _ = strconv.ParseUint(missed, 10, 64)
	return m
}
