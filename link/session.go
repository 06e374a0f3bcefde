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
	"peerlink/internal/latency"
	"peerlink/internal/wait"
	"peerlink/smp"
	"peerlink/stomp"
)

// session sends messages over one connection.
type session struct {
	sender       *sender // lasts longer than the session: its state is that of the queue, not of the connection
	state        *peerState
	conn         *peerConn
	addr         string // the address of the peer's server, from the peer's stomp.toml
	client       *stomp.Client
	log          *slog.Logger
	since        time.Time // when it was opened
	firstDelayed bool      // the first message is sent only after a wait of quietTime
	deadLetterer *deadLetterer

	// retrySoon is set if the next attempt may follow soon although the peer has refused a
	// message: the peer has refused this message for the first time, or the message becomes a
	// dead letter because of an ERROR that names no message.
	retrySoon bool

	consumer broker.Consumer // set before the first message is sent
	receipts wait.Signal     // notified when messages have been confirmed

	mu          sync.Mutex
	sent        inFlight[sentMessage]
	lastReceipt time.Time // when the peer last confirmed a message; zero if it has not
}

// sentMessage is a message that has been sent and is not confirmed.
type sentMessage struct {
	tag uint64 // of the broker's delivery
	fp  fingerprint
	at  time.Duration // since the beginning of the session
}

// newSession opens a STOMP session on conn. On an error it closes conn.
func (sd *sender) newSession(ctx context.Context, st *peerState, conn *peerConn, addr string) (*session, error) {
	se := &session{sender: sd, state: st, conn: conn, addr: addr, log: sd.log.With("server", addr), since: time.Now(), receipts: wait.NewSignal()}
	var err error
	se.client, err = stomp.NewClient(ctx, conn, stomp.ClientConfig{
		Host:           st.Stomp.Host,
		Login:          st.Stomp.Login,
		Passcode:       st.Stomp.Passcode,
		Destination:    st.Stomp.Destination,
		Headers:        sd.s.announcementHeaders(),
		HeartBeat:      se.sender.s.cfg.HeartBeat,
		ConnectTimeout: se.sender.s.cfg.ConnectTimeout,
		Window:         se.sender.s.cfg.Window,
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

// run sends the messages of the queue to the peer until the connection ends, or ctx is
// done. All work is aborted when serviceGraceCtx is done, or when the grace time after
// the end of ctx is over (see graceContext). end cancels ctx with the reason as its
// cause.
func (se *session) run(ctx, serviceGraceCtx context.Context, end func(reason error)) error {
	graceCtx, cancel := se.sender.s.graceContext(ctx, serviceGraceCtx)
	defer cancel()
	defer context.AfterFunc(graceCtx, func() { abort(se.conn) })()
	// The queue is opened only after the peer has accepted the STOMP session: a queue may
	// count how often each message is delivered, including deliveries that could not be
	// sent.
	consumer, err := se.openConsumer(ctx)
	if err != nil {
		return err
	}
	defer consumer.Close()
	defer se.sender.watchQueueRequests(consumer, func() { end(errYielded) })()
	se.consumer = consumer
	se.deadLetterer = newDeadLetterer(graceCtx, se, consumer)
	defer se.deadLetterer.end()
	defer se.sender.peer.follower.addConn()()
	se.sender.logThrottled(se.log, slog.LevelInfo, "sending", "chain", describeChain(se.conn.chain))
	defer se.recordOpened()()
	go func() {
		select {
		case <-se.client.Done():
			end(errConnEnded)
		case <-ctx.Done():
		}
	}()

	err = se.sendMessages(ctx, consumer)

	select {
	case <-se.client.Done():
		err = cmp.Or(se.client.Err(), errClosedByPeer)
		se.handleRefusal(graceCtx, consumer, err)
	default:
		if ctx.Err() != nil || errors.Is(err, errIdle) || errors.Is(err, broker.ErrReopen) {
			return se.disconnect(graceCtx, err)
		}
	}
	se.sender.logThrottled(se.log, slog.LevelInfo, "not sending any more", "err", err)
	return err
}

// recordOpened records that the session has begun to carry messages. The caller calls
// recordClosed when it carries no more.
func (se *session) recordOpened() (recordClosed func()) {
	conn := &openConn{
		Connection: Connection{Direction: Sending, Remote: se.addr, Queue: se.sender.queue},
		leaf:       se.conn.chain[0], wire: se.conn.wire, unconfirmedSince: se.unconfirmedSince,
	}
	recordClosedInStats := se.sender.peer.stats.connOpened(conn)
	recordClosedInTracker := se.sender.tracker.opened(conn)
	return func() {
		recordClosedInTracker()
		recordClosedInStats()
	}
}

var errClosedByPeer = errors.New("the peer has closed the connection")

// disconnect ends the connection in good order. It returns an error if the connection fails
// before all sent messages are confirmed; otherwise the reason if that is errIdle or
// broker.ErrReopen, and nil if it is another one.
func (se *session) disconnect(ctx context.Context, reason error) error {
	ctx, cancel := context.WithTimeout(ctx, se.sender.s.cfg.DrainTimeout)
	defer cancel()
	err := se.client.Disconnect(ctx)
	idle := errors.Is(reason, errIdle)
	if err == nil {
		se.sender.tracker.markWorked(time.Now())
	}
	se.sender.logThrottled(se.log, slog.LevelInfo, "disconnected", "idle", idle, "unconfirmed", se.unconfirmed(), "err", err)
	if (idle || errors.Is(reason, broker.ErrReopen)) && err == nil {
		return reason
	}
	return err
}

// openConsumer opens the queue. While the broker cannot open it, openConsumer tries again for
// [Config.IdleTimeout], and the connection stays open: another connection would not help,
// because the fault is not the peer's. It returns [broker.ErrInUse] immediately.
func (se *session) openConsumer(ctx context.Context) (broker.Consumer, error) {
	start, problems, object := time.Now(), &se.sender.s.brokerProblems, "consumer of "+se.sender.queue
	defer problems.set(object, nil)
	for {
		consumer, err := se.sender.s.cfg.Broker.Consume(ctx, se.sender.queue)
		if err == nil {
			return consumer, nil
		}
		err = fmt.Errorf("queue %s: %w", se.sender.queue, err)
		if ctx.Err() != nil || errors.Is(err, broker.ErrInUse) {
			return nil, err
		}
		if limit := se.sender.s.cfg.IdleTimeout; limit > 0 && time.Since(start) > limit {
			return nil, &brokerError{err}
		}
		problems.set(object, &brokerError{err})
		se.sender.recordBrokerError(err)
		se.sender.logThrottled(se.log, slog.LevelWarn, brokerUnusable, "err", err)
		select {
		case <-time.After(pauseForBroker()):
		case <-se.client.Done():
			return nil, cmp.Or(se.client.Err(), stomp.ErrClosed)
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// sendMessages sends the messages of the queue to the peer until ctx is done. It returns errIdle
// if the session has been idle for [Config.IdleTimeout].
func (se *session) sendMessages(ctx context.Context, consumer broker.Consumer) error {
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
			fp := se.sender.refusals.fingerprint(&d.Outgoing)
			if err == nil {
				if err = se.checkRefusals(&d.Outgoing, fp); err != nil {
					se.sender.consecutiveDeadLetters++
				}
			}
			if err != nil {
				if err := se.deadLetterer.add(ctx, d, fp, err); err != nil {
					return err
				}
				continue
			}
			if err := se.delayFirst(ctx); err != nil {
				return err
			}
			se.addSent(sentMessage{d.Tag, fp, time.Since(se.since)})
			if _, err := se.client.Send(ctx, stomp.Message{Type: d.Type, ContentType: "application/json", Body: body}); err != nil {
				se.removeLastSent()
				return err
			}
			se.sender.peer.stats.messageSent(len(body))
			if se.sender.leftToSendSingly > 0 {
				if err := se.awaitReceipts(ctx); err != nil {
					return err
				}
				se.sender.leftToSendSingly--
			}
		}
	}
}

// addSent records the next message to be sent.
func (se *session) addSent(m sentMessage) {
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

// confirm records that the peer has confirmed the first n messages of the connection. It
// returns the tag of the last of these messages. ok is false if all of them had been
// confirmed before, or fewer messages were sent.
func (se *session) confirm(n uint64) (tag uint64, ok bool) {
	se.mu.Lock()
	defer se.mu.Unlock()
	done := se.sent.confirm(n)
	if len(done) == 0 {
		return 0, false
	}
	now := time.Now()
	se.lastReceipt = now
	se.sender.tracker.markWorked(now)
	se.sender.peer.stats.confirmed.Add(uint64(len(done)))
	se.sender.peer.stats.confirmations.Record(now, func(r latency.Recorder) {
		elapsed := now.Sub(se.since)
		for i := range done {
			r.Add(elapsed - done[i].at)
		}
	})
	return done[len(done)-1].tag, true
}

// anyConfirmed reports whether the peer has confirmed a message of this connection.
func (se *session) anyConfirmed() bool {
	se.mu.Lock()
	defer se.mu.Unlock()
	return se.sent.confirmed > 0
}

// unconfirmed returns the number of messages that are sent and not confirmed.
func (se *session) unconfirmed() int {
	se.mu.Lock()
	defer se.mu.Unlock()
	return len(se.sent.items)
}

// unconfirmedSince returns since when the peer has confirmed none of the unconfirmed messages: the
// time when the first of them was sent or, if that is later, the time of the last receipt. It
// returns the zero time if no message is unconfirmed.
func (se *session) unconfirmedSince() time.Time {
	se.mu.Lock()
	defer se.mu.Unlock()
	if len(se.sent.items) == 0 {
		return time.Time{}
	}
	return later(se.since.Add(se.sent.items[0].at), se.lastReceipt)
}

// deadLetterTimeout bounds the time for making a refused message a dead letter, for
// which the next connection to the peer has to wait.
const deadLetterTimeout = 5 * time.Second

// handleRefusal counts the refusal of the message to which err refers, if err is an ERROR from the
// peer. After maxRefusals, it makes the message a dead letter. The first refusals may be due to a
// transient fault of the peer.
func (se *session) handleRefusal(ctx context.Context, consumer broker.Consumer, err error) {
	refused := new(stomp.ServerError)
	if !errors.As(err, &refused) {
		return
	}
	m, found := se.refusedBy(refused)
	if !found {
		return
	}
	se.sender.peer.stats.refusedByPeer.Add(1)
	n, clockSkew := se.sender.refusals.add(m.fp, isFromFuture(refused), time.Now())
	se.retrySoon = n == 1
	if clockSkew && n == maxRefusals {
		se.sender.logThrottled(se.log, slog.LevelWarn, "the peer refuses a message because its timestamp is in the future; if it is not in the future by this node's clock, it stays queued until the clocks agree, for at most 24 hours", "err", refused.Message)
	}
	if n < maxRefusals {
		return
	}
	if clockSkew {
		// The message's timestamp, which sentMessage does not contain, has to be compared with
		// this node's clock. checkRefusals does that before the message is sent again.
		return
	}
	ctx, cancel := context.WithTimeout(ctx, deadLetterTimeout)
	defer cancel()
	if refused.MessageNumber == 0 {
		se.sender.unidentified.recordDeadLetter(time.Now())
		se.retrySoon = true // the next message is sent soon
	}
	if err := consumer.DeadLetter(ctx, m.tag, "refused by the peer: "+refused.Message); err != nil {
		se.sender.logThrottled(se.log, slog.LevelWarn, "message that the peer refuses can not be set aside now, it stays in the queue", "err", err)
		return // at the next delivery, checkRefusals returns an error for the message
	}
	se.sender.logThrottled(se.log, slog.LevelError, "message set aside, the peer refuses it", "err", refused.Message)
	se.sender.peer.stats.setAside.Add(1)
	se.sender.refusals.forget(m.fp)
	se.sender.consecutiveDeadLetters++
}

// checkRefusals returns an error if the message must not be sent to the peer again.
//
// A peer refuses a message whose timestamp is in the future. If the timestamp is not in
// the future by this node's clock, the message is not at fault, but one of the two
// clocks, which will be corrected. Then the peer accepts the message, and also the
// messages behind it, which are younger and would be refused for the same reason. So the
// message is sent again until the peer accepts it, for at most maxClockSkewWait.
func (se *session) checkRefusals(m *broker.Outgoing, fp fingerprint) error {
	n, clockSkew := se.sender.refusals.count(fp, time.Now())
	switch {
	case n < maxRefusals:
		return nil
	case !clockSkew:
		return errors.New("refused by the peer again and again; see the peer's log")
	case smp.FromFuture(m.Type, m.Body, se.sender.s.cfg.Now()):
		return errors.New("the timestamp is in the future, by the peer's clock and by this node's clock")
	}
	return nil
}

// errIdle is the error of a session that ends because there was nothing to send for
// [Config.IdleTimeout]. Another session begins when there is something to send: a node
// may have thousands of peers with which it rarely exchanges messages.
var errIdle = errors.New("nothing to send")

// next waits for messages. It returns errIdle if none have arrived for
// [Config.IdleTimeout], the peer has confirmed all that were sent, and none wait to become dead
// letters: these would be delivered to the next session at once.
func (se *session) next(ctx context.Context, consumer broker.Consumer) ([]broker.Delivery, error) {
	for {
		batch, err := nextBatch(ctx, consumer, max(0, se.sender.s.cfg.IdleTimeout))
		if err != nil && ctx.Err() == nil && !errors.Is(err, broker.ErrReopen) {
			err = &brokerError{err} // err names the queue already
		}
		if batch != nil || err != nil {
			return batch, err
		}
		if se.unconfirmed() == 0 && !se.deadLetterer.busy() {
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
		return nil, nil // if the consumer has failed, the next call returns its error
	}
	return batch, err
}

// awaitMessage waits, without a connection, until there is a message in the queue. The
// message stays there for the next connection. awaitMessage returns errCheckDue when the link
// has to be checked.
func (sd *sender) awaitMessage(ctx context.Context) error {
	consumer, err := sd.s.cfg.Broker.Consume(ctx, sd.queue)
	if err != nil {
		return fmt.Errorf("queue %s: %w", sd.queue, err)
	}
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	defer sd.watchQueueRequests(consumer, func() { stop(errYielded) })()
	defer sd.scheduleCheck(ctx, func() { stop(errCheckDue) })()
	_, err = consumer.Next(ctx, 1)
	if cause := context.Cause(ctx); errors.Is(cause, errYielded) || err != nil && errors.Is(cause, errCheckDue) {
		err = cause
	}
	if closeErr := consumer.Close(); err == nil && closeErr != nil {
		err = fmt.Errorf("queue %s: %w", sd.queue, closeErr)
	}
	return err
}
