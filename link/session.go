package link

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/wait"
	"peerlink/smp"
	"peerlink/stomp"
)

// session sends messages over one connection.
type session struct {
	*sender
	state        *peerState
	conn         *peerConn
	server       string // its address, from the peer's stomp.toml
	client       *stomp.Client
	log          *slog.Logger
	since        time.Time // when it was opened
	news         bool      // the peer has refused a message that it had not refused before
	quiet        bool      // there was no ERROR for quietTime before the first message
	deadLetterer *deadLetterer

	consumer broker.Consumer // set before the first message is sent
	receipts wait.Signal     // a message has been confirmed

	mu   sync.Mutex
	sent inFlight[sent]
}

// sent is a message that has been sent and is not confirmed.
type sent struct {
	tag uint64 // of the broker
	fp  fingerprint
}

// newSession opens a STOMP session on conn. On an error it closes conn.
func (sd *sender) newSession(ctx context.Context, st *peerState, conn *peerConn, addr string) (*session, error) {
	se := &session{sender: sd, state: st, conn: conn, server: addr, log: sd.log.With("server", addr), since: time.Now(), receipts: wait.NewSignal()}
	var err error
	se.client, err = stomp.NewClient(ctx, conn, stomp.ClientConfig{
		Host:           st.Stomp.Host,
		Login:          st.Stomp.Login,
		Passcode:       st.Stomp.Passcode,
		Destination:    st.Stomp.Destination,
		HeartBeat:      se.s.cfg.HeartBeat,
		ConnectTimeout: se.s.cfg.ConnectTimeout,
		Window:         se.s.cfg.Window,
		OnReceipt: func(n uint64) {
			if tag, ok := se.confirm(n); ok {
				_ = se.consumer.Confirm(tag) // on an error, the messages are sent again
				se.receipts.Notify()
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return se, nil
}

func (se *session) close() { se.client.Close() }

// run moves messages from the queue to the peer until the connection ends, or ctx is
// done. All work is aborted when connCtx is done, or soon after ctx is (see
// graceContext). end ends ctx.
func (se *session) run(ctx, connCtx context.Context, end func(reason error)) error {
	connCtx, cut := se.s.graceContext(ctx, connCtx)
	defer cut()
	defer context.AfterFunc(connCtx, func() { abort(se.conn) })()
	// Messages are taken only once the peer accepts them: a queue may count how often
	// each message is delivered.
	consumer, err := se.openConsumer(ctx)
	if err != nil {
		return err
	}
	defer consumer.Close()
	defer se.serveRequests(consumer, func() { end(errYielded) })()
	se.consumer = consumer
	se.deadLetterer = newDeadLetterer(connCtx, se, consumer)
	defer se.deadLetterer.end()
	defer se.peer.follower.connected()()
	se.logThrottled(se.log, slog.LevelInfo, "sending", "chain", describeChain(se.conn.chain))
	defer se.peer.stats.connOpened(Connection{Direction: Sending, Remote: se.server, Queue: se.queue}, se.conn.chain)()
	go func() {
		select {
		case <-se.client.Done():
			end(errConnEnded)
		case <-ctx.Done():
		}
	}()

	err = se.pump(ctx, consumer)

	select {
	case <-se.client.Done():
		err = cmp.Or(se.client.Err(), errClosedByPeer)
		se.countRefusal(connCtx, consumer, err)
	default:
		if ctx.Err() != nil || errors.Is(err, errIdle) || errors.Is(err, broker.ErrReopen) {
			return se.disconnect(connCtx, err)
		}
	}
	se.logThrottled(se.log, slog.LevelInfo, "not sending any more", "err", err)
	return err
}

var errClosedByPeer = errors.New("the peer has closed the connection")

// disconnect ends the connection in good order. It returns the reason if that is errIdle or
// broker.ErrReopen, unless the connection fails meanwhile.
func (se *session) disconnect(ctx context.Context, reason error) error {
	ctx, cancel := context.WithTimeout(ctx, se.s.cfg.DrainTimeout)
	defer cancel()
	err := se.client.Disconnect(ctx)
	idle := errors.Is(reason, errIdle)
	se.logThrottled(se.log, slog.LevelInfo, "disconnected", "idle", idle, "unconfirmed", se.unconfirmed(), "err", err)
	if (idle || errors.Is(reason, broker.ErrReopen)) && err == nil {
		return reason
	}
	return err
}

// openConsumer opens the queue. While the broker can not do that, it tries again for
// [Config.IdleTimeout], and the connection stays: the peer is not the reason.
func (se *session) openConsumer(ctx context.Context) (broker.Consumer, error) {
	start := time.Now()
	for {
		consumer, err := se.s.cfg.Broker.Consume(ctx, se.queue)
		if err == nil {
			se.s.brokerTroubles.set(se.queue, nil)
			return consumer, nil
		}
		err = fmt.Errorf("queue %s: %w", se.queue, err)
		if ctx.Err() != nil || errors.Is(err, broker.ErrInUse) {
			return nil, err
		}
		if limit := se.s.cfg.IdleTimeout; limit > 0 && time.Since(start) > limit {
			return nil, &brokerError{err}
		}
		se.s.brokerTroubles.set(se.queue, err)
		se.peer.stats.recordError(err)
		se.logThrottled(se.log, slog.LevelWarn, brokerUnusable, "err", err)
		select {
		case <-time.After(pauseForBroker()):
		case <-se.client.Done():
			return nil, cmp.Or(se.client.Err(), stomp.ErrClosed)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// pump moves messages from the queue to the peer until ctx is done. It returns errIdle
// if the session has been idle for [Config.IdleTimeout].
func (se *session) pump(ctx context.Context, consumer broker.Consumer) error {
	for {
		batch, err := se.next(ctx, consumer)
		if err != nil {
			return err
		}
		for _, d := range batch {
			body, err := se.state.view.Outgoing(d.Type, d.ContentType, d.Body)
			if errors.Is(err, smp.ErrView) {
				return err // the view is at fault, not the message
			}
			print := se.refused.fingerprint(&d.Outgoing)
			if err == nil {
				if err = se.refusedTooOften(&d.Outgoing, print); err != nil {
					se.consecutiveDeadLetters++
				}
			}
			if err != nil {
				if err := se.deadLetterer.add(ctx, d, print, err); err != nil {
					return err
				}
				continue
			}
			if err := se.awaitQuiet(ctx); err != nil {
				return err
			}
			se.addSent(sent{d.Tag, print})
			if _, err := se.client.Send(ctx, stomp.Message{Type: d.Type, ContentType: "application/json", Body: body}); err != nil {
				se.removeLastSent()
				return err
			}
			se.peer.stats.messageSent(len(body))
			if se.oneAtATime > 0 {
				if err := se.awaitReceipts(ctx); err != nil {
					return err
				}
				se.oneAtATime--
			}
		}
	}
}

// addSent records the next message to be sent.
func (se *session) addSent(m sent) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.sent.add(m)
}

// removeLastSent undoes addSent for a message that was not sent.
func (se *session) removeLastSent() {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.sent.removeLast()
}

// awaitReceipts waits until all sent messages are confirmed.
func (se *session) awaitReceipts(ctx context.Context) error {
	for se.unconfirmed() > 0 {
		select {
		case <-se.receipts:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// confirm records that the first n messages of the connection have been confirmed. It
// returns the tag of the last of them.
func (se *session) confirm(n uint64) (tag uint64, ok bool) {
	se.mu.Lock()
	defer se.mu.Unlock()
	done := se.sent.confirm(n)
	if len(done) == 0 {
		return 0, false
	}
	se.peer.stats.confirmed.Add(uint64(len(done)))
	return done[len(done)-1].tag, true
}

func (se *session) confirmed() bool {
	se.mu.Lock()
	defer se.mu.Unlock()
	return se.sent.confirmed > 0
}

func (se *session) unconfirmed() int {
	se.mu.Lock()
	defer se.mu.Unlock()
	return len(se.sent.items)
}

// deadLetterTimeout bounds how long the next connection waits until a message that the
// peer has refused is a dead letter.
const deadLetterTimeout = 5 * time.Second

// countRefusal counts a message that the peer has answered with an ERROR, and makes it
// a dead letter after maxRefusals. The first refusals may be due to a transient fault
// of the peer.
func (se *session) countRefusal(ctx context.Context, consumer broker.Consumer, err error) {
	refused := new(stomp.ServerError)
	if !errors.As(err, &refused) {
		return
	}
	m, found := se.refusedBy(refused)
	if !found {
		return
	}
	se.peer.stats.refusedByPeer.Add(1)
	n, early := se.refused.add(m.fp, isFromFuture(refused), time.Now())
	se.news = n == 1
	if early && n == maxRefusals {
		se.log.Warn("the peer takes a message for one from the future; if it is none by our clock, it waits until the two clocks agree", "err", refused.Message)
	}
	if n < maxRefusals || early { // if early, refusedTooOften decides, which has the timestamp
		return
	}
	ctx, cancel := context.WithTimeout(ctx, deadLetterTimeout)
	defer cancel()
	if refused.N == 0 {
		se.unnamed.setAside(time.Now())
		se.news = true // the next message is sent soon
	}
	if err := consumer.DeadLetter(ctx, m.tag, "refused by the peer: "+refused.Message); err != nil {
		se.log.Warn("message that the peer refuses can not be set aside now, it stays in the queue", "err", err)
		return // refusedTooOften decides at the next delivery
	}
	se.log.Error("message set aside, the peer refuses it", "err", refused.Message)
	se.peer.stats.setAside.Add(1)
	se.refused.forget(m.fp)
	se.consecutiveDeadLetters++
}

// refusedTooOften returns an error if the message must not be sent to the peer again.
//
// A peer refuses a message whose timestamp is in the future. If the timestamp is not in
// the future by this node's clock, the message is not at fault: one of the two clocks
// is, and will be corrected. Then the peer accepts the message, and those behind it,
// which are younger and would be refused like it. So the message is sent again until
// then, for at most maxEarly.
func (se *session) refusedTooOften(m *broker.Outgoing, print fingerprint) error {
	n, early := se.refused.count(print, time.Now())
	switch {
	case n < maxRefusals:
		return nil
	case !early:
		return errors.New("the peer has refused it again and again; its log says why")
	case smp.FromFuture(m.Type, m.Body, se.s.cfg.Now()):
		return errors.New("its timestamp is in the future, by the peer's clock and by ours")
	}
	return nil
}

// errIdle is the error of a connection that has had nothing to send for long. The
// connection is made again when there is something: a node may have thousands of peers
// with which it rarely exchanges messages.
var errIdle = errors.New("nothing to send")

// next waits for messages. It returns errIdle if there were none for
// [Config.IdleTimeout], and the peer has confirmed all that were sent.
func (se *session) next(ctx context.Context, consumer broker.Consumer) ([]broker.Delivery, error) {
	for {
		batch, err := nextBatch(ctx, consumer, max(0, se.s.cfg.IdleTimeout))
		if err != nil && ctx.Err() == nil && !errors.Is(err, broker.ErrReopen) {
			err = &brokerError{err} // the broker has named the queue
		}
		if batch != nil || err != nil {
			return batch, err
		}
		if se.unconfirmed() == 0 {
			return nil, errIdle
		}
	}
}

// nextBatch waits for messages, for at most idle (0: forever). It returns nil and no
// error if none have arrived.
func nextBatch(ctx context.Context, consumer broker.Consumer, idle time.Duration) ([]broker.Delivery, error) {
	if idle == 0 {
		return consumer.Next(ctx, batchSize)
	}
	limited, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	batch, err := consumer.Next(limited, batchSize)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, nil // if the consumer has just failed, it returns the error again
	}
	return batch, err
}

// awaitMessage waits, without a connection, until there is a message in the queue. The
// message stays there for the next connection.
func (sd *sender) awaitMessage(ctx context.Context) error {
	consumer, err := sd.s.cfg.Broker.Consume(ctx, sd.queue)
	if err != nil {
		return fmt.Errorf("queue %s: %w", sd.queue, err)
	}
	sd.s.brokerTroubles.set(sd.queue, nil)
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer sd.serveRequests(consumer, func() { stop(errYielded) })()
	_, err = consumer.Next(ctx, 1)
	if errors.Is(context.Cause(ctx), errYielded) {
		err = errYielded
	}
	if closeErr := consumer.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("queue %s: %w", sd.queue, closeErr)
	}
	return err
}
