package local

import (
	"context"
	"strconv"
	"strings"

	"peerlink/stomp"
)

// Message is a message that a [Client] has received.
type Message struct {
	Type       string // SMP message type
	RoutingKey string
	Headers    []stomp.Header // all headers of the MESSAGE, the application's among them
	Body       []byte
	// Redelivered says that it may have been given to an application before.
	Redelivered bool
	// Missed is how many copies were left out before this one.
	Missed uint64

	ack string
}

// ClientSubscription is a [Client]'s subscription. It lasts as long as the
// connection.
type ClientSubscription struct {
	client   *Client
	messages chan Message
}

// Subscribe begins a subscription to "/queue/<inbox>", or to
// "/exchange/<inbox>/#" for copies, which take [AckAuto]. prefetch is how many
// messages may be given to it and not acknowledged; 0 means the door's default.
func (c *Client) Subscribe(ctx context.Context, destination string, prefetch int, ack AckMode) (*ClientSubscription, error) {
	if prefetch == 0 {
		prefetch = defaultPrefetch
	}
	sub := &ClientSubscription{client: c, messages: make(chan Message, min(max(prefetch, 0), maxPrefetch))}
	c.mu.Lock()
	id := strconv.Itoa(len(c.subscriptions))
	c.subscriptions[id] = sub
	c.mu.Unlock()
	err := c.await(ctx, stomp.NewFrame("SUBSCRIBE",
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

// Next waits for the next message. The error is the cause of the end of ctx,
// or why the connection has ended; messages that had arrived before come first.
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
		return Message{}, s.client.reason()
	}
}

// Ack acknowledges a message, and with [AckClient] all those before it. It
// waits for nothing, so a confirmed function may call it; [Client.Disconnect]
// waits for the removal. The error is why the connection has ended.
func (s *ClientSubscription) Ack(m Message) error {
	c := s.client
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err != nil {
		return c.err
	}
	c.acks = append(c.acks, m.ack)
	c.ackBell.Notify()
	return nil
}

// messageFrom reads a MESSAGE.
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
