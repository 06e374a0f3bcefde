package rabbitmq

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
)

// Inspector looks at objects in RabbitMQ. It declares objects passively only, so it changes nothing.
type Inspector struct {
	conn    *amqp.Connection
	socket  net.Conn
	release func() bool
	// Version is that of RabbitMQ; empty if it does not say.
	Version string
	// Address is the address that it was reached at.
	Address string
}

// Inspect connects to RabbitMQ at a URL, or at one of several, as for [Open]. ctx bounds the use of the
// Inspector, which must be closed, and timeout the time until it is connected.
func Inspect(ctx context.Context, url string, timeout time.Duration) (*Inspector, error) {
	urls, err := parseURLs(url)
	if err != nil {
		return nil, err
	}
	dialCtx, cancel := context.WithTimeoutCause(ctx, timeout, fmt.Errorf("no answer within %v", timeout))
	defer cancel()
	r, err := urls.dial(dialCtx, "doctor", "")
	if err != nil {
		return nil, err
	}
	version, _ := r.conn.Properties["version"].(string)
	return &Inspector{
		conn: r.conn, socket: r.socket, Version: version, Address: r.address,
		release: context.AfterFunc(ctx, func() { r.socket.Close() }),
	}, nil
}

// Close disconnects.
func (i *Inspector) Close() error {
	i.release()
	return i.conn.CloseDeadline(time.Now().Add(shutdownTime))
}

// ErrNoExchange is returned for an exchange that does not exist.
var ErrNoExchange = errors.New("exchange does not exist")

// Exchange returns nil if an exchange exists, and [ErrNoExchange] if it does not.
func (i *Inspector) Exchange(name string) error {
	ch, err := i.conn.Channel() // RabbitMQ closes it if there is no exchange
	if err != nil {
		return explain(err)
	}
	defer ch.Close()
	err = ch.ExchangeDeclarePassive(name, "topic", true, false, false, false, nil)
	if hasReplyCode(err, amqp.NotFound) {
		return fmt.Errorf("%w: %s", ErrNoExchange, name)
	}
	return explain(err)
}

// Queue returns how many messages of a queue are not delivered to a consumer, and how many consumers
// it has. It returns [broker.ErrNoQueue] if the queue does not exist.
func (i *Inspector) Queue(name string) (messages, consumers int, err error) {
	ch, err := i.conn.Channel() // RabbitMQ closes it if there is no queue
	if err != nil {
		return 0, 0, explain(err)
	}
	defer ch.Close()
	q, err := repeatLate(func() (amqp.Queue, error) {
		return ch.QueueDeclarePassive(name, true, false, false, false, nil)
	})
	if hasReplyCode(err, amqp.NotFound) {
		return 0, 0, fmt.Errorf("%w: %s", broker.ErrNoQueue, name)
	}
	return q.Messages, q.Consumers, explain(err)
}

// PeerExchange returns the name of the exchange of a peer.
func PeerExchange(q broker.PeerBinding) string { return peerExchange(q) }

// IsSupported reports whether this version of RabbitMQ is 3.10 or newer, or not known.
func IsSupported(version string) bool {
	var major, minor int
	if _, err := fmt.Sscanf(version, "%d.%d", &major, &minor); err != nil {
		return true
	}
	return major > 3 || major == 3 && minor >= 10
}

// IsRefusedLogin reports whether RabbitMQ has refused the user, the password or the virtual host.
func IsRefusedLogin(err error) bool {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return false
	}
	return e == amqp.ErrCredentials || e == amqp.ErrVhost || e.Code == amqp.AccessRefused || e.Code == amqp.NotAllowed
}

// Risk returns how the queue may lose messages because of its arguments, or of the policies that
// apply to it; "" if it does not.
func (q *QueueInfo) Risk() string { return joinRisks(riskOf(q.Arguments), riskOfPolicy(q)) }
