package rabbitmq

import (
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// explain makes an error of the library readable. RabbitMQ's own texts are not changed;
// errors.As still finds the [amqp.Error].
func explain(err error) error {
	var e *amqp.Error
	if !errors.As(err, &e) {
		return err
	}
	switch {
	case e == amqp.ErrClosed:
		return &explainedError{"the connection to RabbitMQ is closed", e}
	case e == amqp.ErrChannelMax:
		return &explainedError{"RabbitMQ gives no more channels", e}
	case e == amqp.ErrCredentials:
		return &explainedError{"RabbitMQ refuses the user name or password, or ends the connection during login", e}
	case e.Server:
		return &explainedError{fmt.Sprintf("RabbitMQ says %s (%d)", e.Reason, e.Code), e}
	}
	return &explainedError{"the connection to RabbitMQ is lost: " + withoutPorts(e.Reason), e}
}

type explainedError struct {
	text  string
	cause *amqp.Error
}

func (e *explainedError) Error() string { return e.text }
func (e *explainedError) Unwrap() error { return e.cause }

// withoutPorts removes the addresses from a network error. The local port is different
// each time, so that the same error would look like a new one.
func withoutPorts(text string) string {
	if _, after, ok := strings.Cut(text, "->"); ok {
		if _, reason, ok := strings.Cut(after, ": "); ok {
			return reason
		}
	}
	return text
}

// saysCode reports whether err is an answer of RabbitMQ with this reply code.
func saysCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Server && e.Code == code
}

// health logs changes of RabbitMQ's state. All connections share it: when RabbitMQ goes
// down they all fail, and one line is enough.
type health struct {
	log     *slog.Logger
	changed wait.Signal // notified when a connection is lost, or an epoch begins

	mu      sync.Mutex
	good    bool      // the last log entry was that there is a connection
	epoch   int       // incremented with each first connection after there was none
	trouble string    // last logged error
	lostAt  time.Time // when the last loss was logged

	refusal atomic.Pointer[refusal] // nil if RabbitMQ has confirmed the last message
}

// refusal is the reason why, and the time since when, RabbitMQ accepts no messages of
// peers although there is a connection.
type refusal struct {
	since, last time.Time // of the first and of the last stream that has ended for it
	err         error
}

const (
	// refusalGrace is how long RabbitMQ may refuse messages before Health reports it.
	refusalGrace = 2 * time.Second
	// refusalLasts is how long Health reports a refusal that is not repeated. Peers try again
	// within a minute. If none does, nobody knows whether the cause is gone, and a load
	// balancer that does not lead peers to a service with trouble would keep it so for ever.
	refusalLasts = 5 * time.Minute
)

// isOver reports whether the refusal was not repeated for long.
func (r *refusal) isOver(now time.Time) bool { return r == nil || now.Sub(r.last) > refusalLasts }

// refused is called when a stream has ended. If the reason was a message, as with missing
// permissions or a missing exchange, the next stream will end in the same way.
func (h *health) refused(err error) {
	if errors.Is(err, broker.ErrUnroutable) || errors.Is(err, errNotConfirmed) ||
		saysCode(err, amqp.AccessRefused) || saysCode(err, amqp.ResourceLocked) || saysCode(err, amqp.PreconditionFailed) {
		now, old := time.Now(), h.refusal.Load()
		next := &refusal{now, now, err}
		if !old.isOver(now) {
			next.since, next.err = old.since, old.err
		}
		h.refusal.CompareAndSwap(old, next) // fails if another stream has recorded the same
	}
}

// stored is called when RabbitMQ has confirmed a message.
func (h *health) stored() {
	if h.refusal.Load() != nil {
		h.refusal.Store(nil)
	}
}

// refusedFor returns an error if RabbitMQ has confirmed no message for longer than grace,
// although messages were published until recently, and nil otherwise.
func (h *health) refusedFor(grace time.Duration) error {
	r, now := h.refusal.Load(), time.Now()
	if r.isOver(now) || now.Sub(r.since) < grace {
		return nil
	}
	return fmt.Errorf("no message of peers could be stored since %s: %w", r.since.UTC().Format(time.DateTime), r.err)
}

// oneOutage is how long after the loss of one connection the loss of an older one is
// considered the same outage: it may be detected only by its missing heartbeats.
const oneOutage = time.Minute

// Health returns why RabbitMQ can not be used: a connection was lost or can not be opened,
// or RabbitMQ blocks a connection, or refuses messages of peers. It returns nil if no
// connection was needed yet. Health also starts to reconnect, and to publish a probe, in
// the background, so that a later call has a newer result.
func (b *Broker) Health() error {
	b.probe.send()
	for _, c := range b.connections() {
		c.restore()
		if err := c.blocked(); err != nil {
			return err
		}
	}
	h := b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.good || h.trouble == "" {
		return h.refusedFor(refusalGrace)
	}
	return errors.New("no connection to RabbitMQ: " + h.trouble)
}

// currentEpoch returns the current epoch. Between two epochs RabbitMQ was unreachable, and may
// have lost objects.
func (h *health) currentEpoch() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch
}

// up is called for a new connection. It reports whether there was none before.
func (h *health) up(version any, address string) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.good {
		return false
	}
	h.good, h.trouble = true, ""
	h.refusal.Store(nil) // what RabbitMQ refused before says nothing about now, and the peer may be away
	h.epoch++
	h.changed.Notify()
	h.log.Info("connected to RabbitMQ", "address", address, "version", version)
	return true
}

// lost is called when a connection has ended that was not closed by this process.
func (h *health) lost(l *liveConn, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.born.Before(h.lostAt) && time.Since(h.lostAt) < oneOutage {
		return
	}
	h.good, h.trouble, h.lostAt = false, err.Error(), time.Now()
	h.changed.Notify()
	h.log.Warn("connection to RabbitMQ lost, it is made again when it is needed", "address", l.at, "err", err)
}

// unreachable is called when an attempt to connect has failed.
func (h *health) unreachable(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.trouble != err.Error() {
		h.good, h.trouble = false, err.Error()
		h.log.Warn("no connection to RabbitMQ", "err", err)
	}
}
