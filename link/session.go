package link

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/smp"
	"peerlink/stomp"
)

// session is the use of one connection for sending.
type session struct {
	*sender
	state        *peerState
	conn         *peerConn
	server       string // its address, as the peer has said
	client       *stomp.Client
	log          *slog.Logger
	since        time.Time // when it was opened
	news         bool      // the peer has refused a message that it had not refused before
	quiet        bool      // no ERROR came in the first moments, while nothing was sent
	deadLetterer *deadLetterer

	consumer broker.Consumer // set before the first message is sent
	receipts chan struct{}   // has an element when a message has been confirmed

	mu      sync.Mutex
	sent    []sent // messages that are not confirmed yet, in order
	first   uint64 // the number, on this connection, of the message sent[0]
	receipt uint64 // the highest number that has been confirmed
}

// sent is a message on its way.
type sent struct {
	tag   uint64 // the broker's
	print fingerprint
}

// newSession opens a STOMP session on a connection, which is closed on an error.
func (sd *sender) newSession(ctx context.Context, st *peerState, conn *peerConn, addr string) (*session, error) {
	se := &session{sender: sd, state: st, conn: conn, server: addr, log: sd.log.With("server", addr), since: time.Now(), first: 1, receipts: make(chan struct{}, 1)}
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
				_ = se.consumer.Confirm(tag) // at worst they are sent again
				select {
				case se.receipts <- struct{}{}:
				default:
				}
			}
		},
	})
	if err != nil {
		return nil, err
	}
	return se, nil
}

func (se *session) close() { se.client.Close() }

// run moves messages from the queue to the peer until the connection ends, or ctx
// is done. Nothing survives the end of connCtx, or lasts much longer than ctx. leave is
// called when another process is to have the queue, and ends ctx.
func (se *session) run(ctx, connCtx context.Context, leave func()) error {
	connCtx, cut := se.s.graceContext(ctx, connCtx)
	defer cut()
	defer context.AfterFunc(connCtx, func() { cutOff(se.conn) })()
	// Not before the peer takes messages: a queue may count how often each of them
	// is given out.
	consumer, err := se.s.cfg.Broker.Consume(ctx, se.queue)
	if err != nil {
		return fmt.Errorf("queue %s: %w", se.queue, err)
	}
	defer consumer.Close()
	defer se.serveRequests(consumer, leave)()
	se.consumer = consumer
	se.deadLetterer = newDeadLetterer(connCtx, se, consumer)
	defer se.deadLetterer.end()
	client := se.client
	defer se.peer.follower.connected()()
	se.logThrottled(se.log, slog.LevelInfo, "sending", "chain", describeChain(se.conn.chain))
	defer se.peer.stats.connOpened(Connection{Direction: Sending, Remote: se.server, Queue: se.queue}, se.conn.chain)()

	// pump ends when the service stops or the connection does.
	pumpCtx, stopPump := context.WithCancel(ctx)
	defer stopPump()
	go func() {
		select {
		case <-client.Done():
			stopPump()
		case <-pumpCtx.Done():
		}
	}()
	err = se.pump(pumpCtx, connCtx, client, consumer)
	ended := false
	select {
	case <-client.Done():
		ended = true
		err = client.Err()
		se.countRefusal(connCtx, consumer, err)
		if err == nil {
			err = errors.New("the peer has closed the connection")
		}
	default:
	}
	why := err
	idle, reopen := errors.Is(err, errIdle), errors.Is(err, broker.ErrReopen)
	if ended || ctx.Err() == nil && !idle && !reopen { // then it was the broker
		se.logThrottled(se.log, slog.LevelInfo, "not sending any more", "err", err)
		return err
	}
	drain, cancel := context.WithTimeout(connCtx, se.s.cfg.DrainTimeout)
	defer cancel()
	err = client.Disconnect(drain)
	se.logThrottled(se.log, slog.LevelInfo, "disconnected", "idle", idle, "unconfirmed", se.unconfirmed(), "err", err)
	if (idle || reopen) && err == nil {
		return why
	}
	return err
}

// pump moves messages from the queue to the peer until ctx is done, or there was
// nothing to move for so long that the connection had better rest: then the error
// is errIdle.
func (se *session) pump(ctx, connCtx context.Context, client *stomp.Client, consumer broker.Consumer) error {
	for {
		batch, err := se.next(ctx, consumer)
		if err != nil {
			return err
		}
		for _, d := range batch {
			body, err := se.state.view.Outgoing(d.Type, d.ContentType, d.Body)
			if errors.Is(err, smp.ErrView) {
				return err // not the message's fault
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
			if _, err := client.Send(ctx, stomp.Message{Type: d.Type, ContentType: "application/json", Body: body}); err != nil {
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

// addSent notes that this message is the next to be sent.
func (se *session) addSent(m sent) {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.sent = append(se.sent, m)
}

// removeLastSent undoes push for a message that was not sent.
func (se *session) removeLastSent() {
	se.mu.Lock()
	defer se.mu.Unlock()
	if n := len(se.sent); n > 0 {
		se.sent = se.sent[:n-1]
	}
}

// awaitReceipts waits until everything that was sent is confirmed.
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

// confirm notes that the first n messages of the connection have been
// confirmed. It returns the tag of the last of them.
func (se *session) confirm(n uint64) (tag uint64, ok bool) {
	se.mu.Lock()
	defer se.mu.Unlock()
	if n < se.first || n >= se.first+uint64(len(se.sent)) {
		return 0, false
	}
	i := n - se.first
	tag = se.sent[i].tag
	se.peer.stats.confirmed.Add(i + 1)
	se.sent = se.sent[i+1:]
	se.first, se.receipt = n+1, n
	return tag, true
}

func (se *session) confirmed() bool {
	se.mu.Lock()
	defer se.mu.Unlock()
	return se.receipt > 0
}

func (se *session) unconfirmed() int {
	se.mu.Lock()
	defer se.mu.Unlock()
	return len(se.sent)
}

// deadLetterTimeout bounds how long the next connection waits until a message that the
// peer has refused is set aside.
const deadLetterTimeout = 5 * time.Second

// countRefusal counts a message that the peer has answered with an ERROR. The first few
// times it may be a passing trouble on the other side.
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
	early := isFromFuture(refused)
	n := se.refused.add(m.print, early)
	se.news = n == 1
	if early && n == maxRefusals {
		se.log.Warn("the peer takes a message for one from the future; if it is none by our clock, it waits until the two clocks agree", "err", refused.Message)
	}
	if n < maxRefusals || early { // then hopeless decides, who has the message
		return
	}
	ctx, cancel := context.WithTimeout(ctx, deadLetterTimeout)
	defer cancel()
	if refused.N == 0 {
		se.unnamed.setAside(time.Now())
		se.news = true // the next message is offered soon
	}
	if err := consumer.DeadLetter(ctx, m.tag, "refused by the peer: "+refused.Message); err != nil {
		se.log.Warn("message that the peer refuses can not be set aside now, it stays in the queue", "err", err)
		return // hopeless decides when it comes again
	}
	se.log.Error("message set aside, the peer refuses it", "err", refused.Message)
	se.peer.stats.setAside.Add(1)
	se.refused.forget(m.print)
	se.consecutiveDeadLetters++
}

// refusedTooOften returns why a message is not worth being offered to the peer again, if
// it is not.
//
// A message from the future is refused. But one that is none by our clock has
// done nothing wrong: a clock is, the peer's or ours, and will be put right.
// Then the message passes, as do those behind it, which are younger and would
// be refused like it. So it waits.
func (se *session) refusedTooOften(m *broker.Outgoing, print fingerprint) error {
	n, early := se.refused.count(print)
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

// isFromFuture reports whether a peer has refused a message for its timestamp. There
// is no code for that, but our own nodes and the reference implementation say it
// in these words. A peer with other words gets no patience with its clock.
func isFromFuture(refused *stomp.ServerError) bool {
	return strings.Contains(refused.Message, "in the future")
}

// errIdle is why a connection ends that has had nothing to send for long. It is
// made again when there is something: a node may have thousands of peers with
// which it exchanges a message now and then.
var errIdle = errors.New("nothing to send")

// next waits for messages. It returns errIdle when there were none for
// [Config.IdleTimeout], and the peer has confirmed what was sent.
func (se *session) next(ctx context.Context, consumer broker.Consumer) ([]broker.Delivery, error) {
	for {
		batch, err := nextBatch(ctx, consumer, max(0, se.s.cfg.IdleTimeout))
		if batch != nil || err != nil {
			return batch, err
		}
		if se.unconfirmed() == 0 {
			return nil, errIdle
		}
	}
}

// nextBatch waits for messages, for up to idle (0: for ever). It returns none,
// and no error, if none have come.
func nextBatch(ctx context.Context, consumer broker.Consumer, idle time.Duration) ([]broker.Delivery, error) {
	if idle == 0 {
		return consumer.Next(ctx, batchSize)
	}
	limited, cancel := context.WithTimeout(ctx, idle)
	defer cancel()
	batch, err := consumer.Next(limited, batchSize)
	if err != nil && limited.Err() != nil && ctx.Err() == nil {
		return nil, nil // should the consumer have failed just now, it will say so again
	}
	return batch, err
}

// awaitMessage waits, without a connection, until there is a message in the queue. The
// message stays there: the next connection begins with it.
func (sd *sender) awaitMessage(ctx context.Context) error {
	consumer, err := sd.s.cfg.Broker.Consume(ctx, sd.queue)
	if err != nil {
		return fmt.Errorf("queue %s: %w", sd.queue, err)
	}
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
