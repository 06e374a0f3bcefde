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
		return &explainedError{"the connection to RabbitMQ, or a channel on it, is closed", e}
	case e == amqp.ErrChannelMax:
		return &explainedError{"RabbitMQ permits no more channels on this connection", e}
	case e == amqp.ErrCredentials:
		return &explainedError{"RabbitMQ refuses the user name or password, or ends the connection during login", e}
	case e.Server:
		return &explainedError{fmt.Sprintf("RabbitMQ says %s (%d)", e.Reason, e.Code), e}
	}
	return &explainedError{"the connection to RabbitMQ has failed: " + withoutPorts(e.Reason), e}
}

type explainedError struct {
	text  string
	cause *amqp.Error
}

func (e *explainedError) Error() string { return e.text }
func (e *explainedError) Unwrap() error { return e.cause }

// withoutPorts removes the addresses from a network error. The local port is different each
// time, so the same error would look like a new one.
func withoutPorts(text string) string {
	if _, after, ok := strings.Cut(text, "->"); ok {
		if _, reason, ok := strings.Cut(after, ": "); ok {
			return reason
		}
	}
	return text
}

// hasReplyCode reports whether err is an error of RabbitMQ with this AMQP reply code.
func hasReplyCode(err error, code int) bool {
	var e *amqp.Error
	return errors.As(err, &e) && e.Server && e.Code == code
}

// health records and logs changes of RabbitMQ's state. All connections share it: when RabbitMQ goes
// down they all fail, and one line is enough.
type health struct {
	log     *slog.Logger
	changed wait.Signal // notified when a connection is lost, or an epoch begins

	mu        sync.Mutex
	connected bool      // the last state logged was that there is a connection
	epoch     int       // incremented with each first connection after RabbitMQ was unreachable
	problem   string    // the error that was logged last; "" while connected is true, and if there was none
	lostAt    time.Time // when the last loss was logged

	refusal atomic.Pointer[refusal] // nil if no stream has ended because of a refusal since RabbitMQ last confirmed a message, or the epoch began
}

// refusal records that RabbitMQ accepts no messages of peers although there is a connection.
type refusal struct {
	since, last time.Time // when the first and the last stream has ended for this reason
	err         error     // why the first has ended
	peer        string    // the only peer whose messages are known to be refused; "" if the reason concerns all messages, or several peers
}

const (
	// refusalGrace is how long RabbitMQ may refuse messages before Health reports it.
	refusalGrace = 2 * time.Second
	// refusalLasts is how long Health reports a refusal that is not repeated. Peers try again
	// within a minute. If no peer does, it is unknown whether the cause persists, and would
	// remain so if a load balancer directs no peers to an unhealthy service.
	refusalLasts = 5 * time.Minute
)

// isOver reports whether there is no refusal, or it was not repeated for refusalLasts.
func (r *refusal) isOver(now time.Time) bool { return r == nil || now.Sub(r.last) > refusalLasts }

// recordRefusal records a refusal if that is why a stream has ended, as with missing
// permissions or a missing exchange: the next stream will end in the same way. err is the
// reason why the stream has ended. If the reason is a single message that no binding
// matches, peer is the sender; otherwise it is "".
func (h *health) recordRefusal(err error, peer string) {
	if errors.Is(err, broker.ErrUnroutable) || errors.Is(err, errNotConfirmed) ||
		hasReplyCode(err, amqp.AccessRefused) || hasReplyCode(err, amqp.ResourceLocked) || hasReplyCode(err, amqp.PreconditionFailed) {
		now, old := time.Now(), h.refusal.Load()
		next := &refusal{since: now, last: now, err: err, peer: peer}
		switch {
		case old.isOver(now):
		case old.peer == "":
			next.since, next.err, next.peer = old.since, old.err, ""
		case old.peer == peer:
			next.since, next.err = old.since, old.err
		default:
			next.peer = "" // a second peer, or all
		}
		h.refusal.CompareAndSwap(old, next) // fails if another stream has recorded the same
	}
}

// recordStored records that RabbitMQ has confirmed a message, which ends the refusal.
func (h *health) recordStored() {
	if h.refusal.Load() != nil {
		h.refusal.Store(nil)
	}
}

// refusedFor returns an error if a refusal is older than grace and not over, and nil
// otherwise. peers is the number of the node's peers: if there are several, messages of one of
// them that no binding matches do not show that the messages of the others are refused.
func (h *health) refusedFor(grace time.Duration, peers int) error {
	r, now := h.refusal.Load(), time.Now()
	if r.isOver(now) || now.Sub(r.since) < grace || r.peer != "" && peers > 1 {
		return nil
	}
	return r.explain()
}

// explain returns the error for an operator: who is affected, since when, why, and what can be done.
func (r *refusal) explain() error {
	who, remedy := "peers", ""
	if r.peer != "" {
		who = "peer " + r.peer
	}
	if errors.Is(r.err, broker.ErrUnroutable) {
		remedy = "; " + broker.UnroutableRemedy
	}
	return fmt.Errorf("no message of %s could be stored since %s: %w%s", who, r.since.UTC().Format(time.DateTime), r.err, remedy)
}

// oneOutage is how long after the loss of a connection the loss of an older connection
// belongs to the same outage: it may be detected only by missing heartbeats.
const oneOutage = time.Minute

// Health returns why RabbitMQ cannot be used: a connection was lost or cannot be opened, or
// RabbitMQ blocks a connection or refuses messages of peers. It returns nil if no connection
// was needed yet. Health also reconnects and publishes a probe, in the background, so that a
// later call has a newer result.
func (b *Broker) Health() error {
	b.prober.send()
	for _, c := range b.connections() {
		c.reconnectIfLost()
		if err := c.blockedError(); err != nil {
			return err
		}
	}
	b.mu.Lock()
	peers := len(b.declared)
	b.mu.Unlock()
	h := b.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connected || h.problem == "" {
		return h.refusedFor(refusalGrace, peers)
	}
	return errors.New("no connection to RabbitMQ: " + h.problem)
}

// currentEpoch returns the number of the current epoch. Between two epochs RabbitMQ was
// unreachable, and may have lost objects.
func (h *health) currentEpoch() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.epoch
}

// recordConnected records that a connection was opened. If the last state was not connected,
// it logs that, begins an epoch, and returns true.
func (h *health) recordConnected(version any, address string) (first bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.connected {
		return false
	}
	h.connected, h.problem = true, ""
	h.refusal.Store(nil) // may be over since RabbitMQ was unreachable, and peers may publish nothing that would show it
	h.epoch++
	h.changed.Notify()
	h.log.Info("connected to RabbitMQ", "address", address, "version", version)
	return true
}

// recordLost records and logs that a connection has ended that was not closed by this
// process, unless its loss belongs to an outage that was logged already.
func (h *health) recordLost(l *liveConn, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if l.born.Before(h.lostAt) && time.Since(h.lostAt) < oneOutage {
		return
	}
	h.connected, h.problem, h.lostAt = false, err.Error(), time.Now()
	h.changed.Notify()
	h.log.Warn("connection to RabbitMQ lost, the next operation that needs it reconnects", "address", l.address, "err", err)
}

// recordUnreachable records that an attempt to connect has failed, and logs the error unless
// it is the one logged last.
func (h *health) recordUnreachable(err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.problem != err.Error() {
		h.connected, h.problem = false, err.Error()
		h.log.Warn("no connection to RabbitMQ", "err", err)
	}
}
