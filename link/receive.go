package link

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"peerlink/broker"
	"peerlink/internal/logthrottle"
	"peerlink/internal/wait"
	"peerlink/node/pki"
	"peerlink/smp"
	"peerlink/stomp"
)

// receiver receives messages on one accepted connection.
type receiver struct {
	s      *shared
	peer   *peer
	state  *peerState
	since  time.Time // when the connection was registered with the peer
	server *stomp.Server
	log    *slog.Logger

	messageRejected bool // a message of the peer was answered with an ERROR; set before run returns

	mu           sync.Mutex
	changed      sync.Cond        // signals that a field below has changed
	receipts     inFlight[string] // receipt IDs of the messages handed to the broker; confirmed once the receipt is about to be sent
	receiptBytes int              // total size of the items of receipts
	acquired     inFlight[int64]  // capacity of peer.unstored that each of these messages has acquired; confirmed once the message is stored
	failed       error            // why the broker will store no more messages
	ended        bool             // no more messages will be handed to the broker
}

// receive serves one authenticated connection until the connection ends. It calls
// admitted once the connection is registered with the peer.
func (a *acceptor) receive(ctx, graceCtx context.Context, conn *peerConn, id pki.Identity, admitted func()) {
	log := a.log.With("peer", id.ID, "remote", conn.RemoteAddr().String())
	defer conn.Close()
	// stop ends the connection in good order. If that is blocked, for example by a
	// broker that does not respond, connGraceCtx ends the connection.
	stopCtx, stopFor := context.WithCancelCause(ctx)
	stop := func() { stopFor(nil) }
	defer stop()
	connGraceCtx, cancel := a.graceContext(stopCtx, graceCtx)
	defer cancel()
	defer context.AfterFunc(connGraceCtx, func() { abort(conn) })()

	r := &receiver{s: a.shared, log: log}
	r.changed.L = &r.mu
	reason := a.register(r, id, conn.chain, stop)
	a.logContradiction(log, id, conn.chain, r.state)
	if reason != "" {
		a.rejected.count(reasonNoPeer)
		a.logLimiter.Log(log, slog.LevelWarn, logthrottle.Key{Who: id.ID, Kind: reason}, "connection rejected", "reason", reason)
		stomp.NewConn(conn, stomp.DefaultLimits()).Fail(&stomp.ServerError{Message: reason})
		return
	}
	defer a.unregister(r)
	defer context.AfterFunc(r.state.generation, stop)()
	defer a.onExpiry(incomingCertificates(conn.own, conn.chain), func(e *certificateExpired) {
		a.logExpired(log, id.ID, e)
		stopFor(e)
	})()
	admitted()

	var announced string
	var err error
	r.server, err = stomp.NewServer(stopCtx, conn, stomp.ServerConfig{
		Destination:    a.cfg.Dir.Identity().Type.Destination(),
		HeartBeat:      a.cfg.HeartBeat,
		ConnectTimeout: a.cfg.ConnectTimeout,
		OnConnect: func(connect *stomp.Frame) {
			url, _ := connect.Get(BundleURLHeader)
			announced = strings.Clone(url)
		},
	})
	if err != nil {
		a.logLimiter.Log(log, slog.LevelWarn, logthrottle.Key{Who: id.ID, Kind: "no STOMP connection"}, "no STOMP connection", "err", err)
		return
	}
	defer r.server.Close()
	a.logLimiter.Log(log, slog.LevelInfo, logthrottle.Key{Who: id.ID, Kind: "receiving"}, "receiving", "chain", describeChain(conn.chain))
	a.handleAnnounced(log, r.peer, r.state, announced)
	recordClosed := r.recordOpened(conn)
	r.peer.connected.Notify()
	err = r.run(stopCtx, connGraceCtx)
	if err == nil && r.server.Disconnected() {
		r.peer.in.markWorked(time.Now())
	}
	recordClosed()
	r.track(err)
	level := slog.LevelInfo
	if violation := new(stomp.ProtocolError); r.messageRejected || errors.As(err, &violation) || errors.Is(err, errOverhead) {
		level = slog.LevelWarn
	}
	a.logLimiter.Log(log, level, logthrottle.Key{Who: id.ID, Kind: "not receiving"}, "not receiving any more", "err", err)
}

// run moves messages from the connection to the broker until the peer disconnects,
// something fails, or stopCtx is done. Before it returns, it waits until the messages
// handed to the broker are stored and confirmed, for at most [Config.DrainTimeout].
func (r *receiver) run(stopCtx, graceCtx context.Context) error {
	// When no more receipts will be sent, run does not wait for the peer to send
	// something: the peer may have nothing to send, and wait for its receipts.
	stopCtx, halt := context.WithCancel(stopCtx)
	defer halt()
	capacityCtx, release := r.capacityContext(stopCtx)
	defer release()
	pub, err := r.openPublisher(capacityCtx)
	if err != nil {
		return r.end(stopCtx, nil, err)
	}
	defer r.releaseUnstored()
	defer pub.Close()

	receiptsSent := make(chan error, 1)
	go func() {
		receiptsSent <- r.sendReceipts()
		halt()
	}()
	defer context.AfterFunc(stopCtx, r.server.StopReading)()
	errorToPeer, err := r.receiveMessages(graceCtx, capacityCtx, pub)

	r.mu.Lock()
	r.ended = true
	r.changed.Broadcast()
	r.mu.Unlock()
	late := fmt.Errorf("the broker has not stored all received messages within %v after the connection had to end", r.s.cfg.DrainTimeout)
	timer := time.AfterFunc(r.s.cfg.DrainTimeout, func() { r.onStored(0, late) })
	defer timer.Stop()
	if storeErr := <-receiptsSent; storeErr != nil {
		switch {
		case errors.Is(storeErr, context.Canceled):
			// The end of graceCtx has interrupted the broker. The peer sends the messages again.
		case errors.Is(storeErr, late):
			r.recordNotStored(slog.LevelWarn, storeErr) // a warning only: the broker itself logs its faults as errors
		default:
			r.recordNotStored(slog.LevelError, storeErr)
		}
		r.server.Fail(&stomp.ServerError{Message: internalError})
		return storeErr
	}
	return r.end(stopCtx, errorToPeer, err)
}

// end ends the session for the reason err, after everything that can be confirmed is
// confirmed. errorToPeer is the ERROR to send to the peer about a message, or nil.
func (r *receiver) end(stopCtx context.Context, errorToPeer *stomp.ServerError, err error) error {
	expired := new(certificateExpired)
	switch {
	case errorToPeer != nil:
		r.messageRejected = true
		r.server.Fail(errorToPeer)
		return err
	case errors.Is(err, stomp.ErrStopped) && errors.As(context.Cause(stopCtx), &expired):
		r.server.Fail(&stomp.ServerError{Message: expired.toPeer()})
		return expired
	case errors.Is(err, io.EOF) || errors.Is(err, stomp.ErrStopped):
		return r.server.Finish()
	default:
		return err
	}
}

// openPublisher opens a publisher of the broker. While the broker cannot be used,
// openPublisher tries again, and nothing is read from the peer. If the connection ended
// instead, the peer's pauses between attempts would grow, and the peer would connect again
// long after the broker can be used again.
func (r *receiver) openPublisher(capacityCtx context.Context) (broker.Publisher, error) {
	for {
		pub, err := r.s.cfg.Broker.Publish(capacityCtx, r.onStored)
		if err == nil {
			return pub, nil
		}
		if capacityCtx.Err() == nil && !errors.Is(err, broker.ErrClosed) {
			r.recordNotStored(slog.LevelError, err)
			err = wait.Sleep(capacityCtx, pauseForBroker())
		}
		if err != nil {
			return nil, capacityError(capacityCtx, err)
		}
	}
}

// recordNotStored records and logs why messages of the peer are not stored.
func (r *receiver) recordNotStored(level slog.Level, err error) {
	r.s.logLimiter.Log(r.log, level, logthrottle.Key{Who: r.peer.id, Kind: "not stored"}, "received messages can not be stored", "err", err)
	r.peer.stats.recordError(fromPeer, fmt.Errorf("received messages can not be stored: %w", err))
	remedy := brokerRemedy
	if errors.Is(err, broker.ErrUnroutable) {
		remedy = broker.UnroutableRemedy
	}
	r.peer.in.set(LinkState{Verdict: VerdictBrokerUnavailable, Reason: "received messages can not be stored: " + err.Error(), Remedy: remedy})
}

// recordOpened records that the connection has begun to carry messages. The caller calls
// recordClosed when it carries no more.
func (r *receiver) recordOpened(conn *peerConn) (recordClosed func()) {
	r.peer.stats.handshakes.Add(conn.took, time.Now())
	c := &openConn{Connection: Connection{Direction: Receiving, Remote: conn.RemoteAddr().String()}, leaf: conn.chain[0], wire: conn.wire}
	recordClosedInStats := r.peer.stats.connOpened(c)
	recordClosedInTracker := r.peer.in.opened(c)
	return func() {
		recordClosedInTracker()
		recordClosedInStats()
	}
}

// track records how the connection has ended.
func (r *receiver) track(err error) {
	switch {
	case err == nil:
		r.peer.in.lastClosed(LinkState{Verdict: VerdictResting})
	case r.messageRejected:
		return // recordRefused has recorded it
	default:
		r.peer.in.lastClosed(explainLoss(err, r.peer.id, r.s.cfg.Now()))
	}
	if !r.server.Disconnected() {
		r.peer.checkNow.Notify() // the peer may have crashed
	}
}

// internalError is all that is sent to a peer about faults of this node.
const internalError = "Internal server error."

// receiveMessages passes messages from the peer to the broker until an error occurs, such as io.EOF
// when the peer has disconnected. errorToPeer is the ERROR to send to the peer about a
// message, or nil. capacityCtx ends waits for capacity.
func (r *receiver) receiveMessages(ctx, capacityCtx context.Context, pub broker.Publisher) (errorToPeer *stomp.ServerError, err error) {
	inbox := r.s.cfg.Dir.Identity().Type.Inbox()
	for {
		if err := r.waitForCapacity(capacityCtx); err != nil {
			return nil, err
		}
		m, err := r.server.Next()
		if err != nil {
			return nil, err
		}
		r.peer.stats.messageReceived(len(m.Body))
		in, err := r.state.view.Incoming(m.Type, m.ContentType, m.Body, r.s.cfg.Now())
		if errors.Is(err, smp.ErrView) {
			return &stomp.ServerError{Message: internalError}, err // the view is at fault, not the message
		}
		if err != nil {
			r.peer.stats.refused.Add(1)
			r.recordRefused(&m, err)
			return &stomp.ServerError{
				Message: err.Error(), ReceiptID: m.ID, Type: m.Type, ContentType: m.ContentType, Body: m.Body,
			}, fmt.Errorf("message %.100q refused: %w", m.ID, err)
		}
		acquired, err := r.peer.unstored.acquire(capacityCtx, in.Body)
		if err != nil {
			return nil, capacityError(capacityCtx, err) // the peer will send the message again
		}
		r.add(m.ID, acquired)
		received := incoming(inbox, &in)
		received.Peer = r.peer.id
		if err := pub.Publish(ctx, received); err != nil {
			r.onStored(0, err)
			return nil, err
		}
	}
}

// recordRefused records that a message of the peer is refused.
func (r *receiver) recordRefused(m *stomp.Received, err error) {
	r.peer.stats.recordError(fromPeer, fmt.Errorf("message from the peer refused: %w", err))
	s := LinkState{Verdict: VerdictRefused, Reason: "a message of the peer was refused: " + err.Error(),
		Remedy: "tell the owner of " + r.peer.id + ", whose applications have to mend or drop the message"}
	if smp.FromFuture(m.Type, m.Body, r.s.cfg.Now()) {
		s.Verdict, s.Remedy = VerdictClockDiffers, "compare the clocks of both machines, for example with: timedatectl"
	}
	r.peer.in.set(s)
}

// incoming returns a received message in the form that the broker expects.
func incoming(inbox string, in *smp.Received) *broker.Incoming {
	return &broker.Incoming{
		Exchange:    inbox,
		RoutingKey:  in.RoutingKey,
		Type:        in.Type,
		ContentType: smp.ContentType,
		Headers:     headers(in.Headers),
		Body:        in.Body,
	}
}

func headers(h smp.Headers) []broker.Header {
	list := make([]broker.Header, 0, 7)
	for name, value := range h.All() {
		list = append(list, broker.Header{Name: name, Value: value})
	}
	return list
}

// add records a message that is about to be handed to the broker.
func (r *receiver) add(receipt string, acquired int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.receipts.add(receipt)
	r.receiptBytes += len(receipt)
	r.acquired.add(acquired)
}

// onStored is called with the number of messages of this connection that the broker has
// stored so far, and with the error, if any, because of which it will store no more. The
// number may be 0 with an error, although messages were stored.
func (r *receiver) onStored(n uint64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if stored := r.release(n); stored > 0 {
		r.peer.stats.stored.Add(uint64(stored))
		r.peer.in.markWorked(time.Now())
	}
	if r.failed == nil {
		r.failed = err
	}
	r.changed.Broadcast()
}

// release releases the capacity that the messages up to number n have acquired, as far as
// it is not released yet. It returns for how many messages it has done so. The caller
// holds mu.
func (r *receiver) release(n uint64) int {
	done := r.acquired.confirm(n)
	sum := int64(0)
	for _, acquired := range done {
		sum += acquired
	}
	r.peer.unstored.release(sum)
	return len(done)
}

// releaseUnstored releases all capacity. It is called when the broker will not report
// any more messages as stored.
func (r *receiver) releaseUnstored() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.release(r.acquired.last())
}

// sendReceipts sends a receipt whenever more messages are stored, one for all of these
// messages, until no more messages will be stored.
func (r *receiver) sendReceipts() error {
	for {
		receipt, ok, err := r.nextReceipt()
		if !ok {
			return err
		}
		_ = r.server.Confirm(receipt) // pump gets the same error from Next, and returns it
	}
}

// nextReceipt waits for the next receipt that can be sent. ok is false if no more
// receipts can be sent: because all are sent and no more messages come, or because the
// broker has failed.
func (r *receiver) nextReceipt() (receipt string, ok bool, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	// Both number the same messages: acquired.confirmed counts the messages that are stored,
	// and receipts.confirmed the messages whose receipts have been sent. If the numbers differ,
	// a receipt is due.
	for r.acquired.confirmed == r.receipts.confirmed {
		if r.ended && len(r.receipts.items) == 0 {
			return "", false, nil
		}
		if r.failed != nil {
			return "", false, r.failed
		}
		r.changed.Wait()
	}
	done := r.receipts.confirm(r.acquired.confirmed)
	receipt = done[len(done)-1]
	for _, id := range done {
		r.receiptBytes -= len(id)
	}
	clear(done)           // frees the strings: their array may stay in use for long
	r.changed.Broadcast() // awaitReceiptSlot may wait for this
	return receipt, true, nil
}

// maxReceipts is how many received messages of one connection may wait for their
// receipts, and maxReceiptBytes the maximum total size of their receipt IDs. That is
// more than any known sender needs: their windows are smaller, and their receipt IDs are
// numbers. At these limits nothing is read until receipts have been sent.
const (
	maxReceipts     = 4096
	maxReceiptBytes = 64 << 10
)

// hasReceiptSlot reports whether another message may wait for its receipt. The caller
// holds mu.
func (r *receiver) hasReceiptSlot() bool {
	return len(r.receipts.items) < maxReceipts && r.receiptBytes < maxReceiptBytes
}

// errConnBroken is the error of a connection that breaks while it waits for capacity.
var errConnBroken = errors.New("the peer has disconnected, or does not read")

// newMessageLimiter returns a limiter of messages per second; 0 or less means no limit.
// Capacity that is not used in a second can be used in the next.
func newMessageLimiter(perSecond int) *rate.Limiter {
	if perSecond <= 0 {
		return rate.NewLimiter(rate.Inf, 1)
	}
	return rate.NewLimiter(rate.Limit(perSecond), perSecond)
}

// capacityContext returns a context for the waits during which nothing is read from the
// connection: waitForCapacity, openPublisher and the unstoredLimiter. It is canceled
// with stopCtx, or when the connection breaks, which no read detects meanwhile.
func (r *receiver) capacityContext(stopCtx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(stopCtx)
	go func() {
		select {
		case <-r.server.Broken():
			cancel(errConnBroken)
		case <-ctx.Done():
		}
	}()
	return ctx, func() { cancel(nil) }
}

// waitForCapacity waits until the next message may be read: until the peer is within
// its rate, its messages in the inbox are within their quota, and another message may wait
// for its receipt. Nothing is sent to the peer: it is slowed down by TCP backpressure.
func (r *receiver) waitForCapacity(ctx context.Context) error {
	err := r.awaitReceiptSlot(ctx)
	if err == nil && !r.peer.messageLimiter.Allow() {
		end := r.peer.throttled.begin()
		err = r.peer.messageLimiter.Wait(ctx)
		end()
	}
	if r.s.quotas != nil && err == nil {
		err = r.awaitQuota(ctx)
	}
	return capacityError(ctx, err)
}

// endedContext is a context that has ended.
var endedContext = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// awaitQuota waits until the peer's messages in the inbox are within their quota.
func (r *receiver) awaitQuota(ctx context.Context) error {
	if r.s.quotas.AwaitQuota(endedContext, r.peer.id) == nil {
		return nil // no need to wait
	}
	r.peer.quotaFull.observe(time.Now())
	err := r.s.quotas.AwaitQuota(ctx, r.peer.id)
	if err == nil {
		r.peer.quotaFull.end()
	}
	return err
}

// capacityError returns why a wait for capacity or for the broker has ended: err, or the
// reason why ctx is done.
func capacityError(ctx context.Context, err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(context.Cause(ctx), errConnBroken):
		return errConnBroken
	case ctx.Err() != nil:
		return stomp.ErrStopped
	default:
		return err
	}
}

// awaitReceiptSlot waits until hasReceiptSlot returns true. It also returns nil when the
// broker has failed: then run stops reading from the connection.
func (r *receiver) awaitReceiptSlot(ctx context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hasReceiptSlot() {
		return nil
	}
	defer context.AfterFunc(ctx, func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.changed.Broadcast()
	})()
	for !r.hasReceiptSlot() && r.failed == nil && ctx.Err() == nil {
		r.changed.Wait()
	}
	return ctx.Err()
}
