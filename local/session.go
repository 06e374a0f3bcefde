package local

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/internal/wait"
	"peerlink/stomp"
)

// session is a connection of an application that has sent the passcode.
type session struct {
	door *Door
	conn *stomp.Conn
	log  *slog.Logger

	opCtx     context.Context // of operations in progress and of subscriptions; canceled when the session stops waiting for operations
	cancelOps context.CancelFunc
	aborted   chan struct{} // closed when abort returns

	wake      wait.Signal   // for run: there are receipts to write, the session ends, or pending has decreased since
	slotFreed wait.Signal   // for read: pending has decreased, or the session ends
	tags      atomic.Uint64 // the last tag of a delivery, of all subscriptions

	transactions transactions // used by read only

	mu            sync.Mutex
	pending       int      // operations in progress: neither failed nor answered
	receipts      []string // receipt IDs of the receipts to be written
	subscriptions map[subscriptionKey]*subscription
	prefetch      int        // sum of the prefetch limits of the subscriptions
	end           *endReason // why and how the session ends; nil while it is running
}

// endReason describes how a session ends.
type endReason struct {
	err           error              // why, for the log; nil after DISCONNECT
	errorToClient *stomp.ServerError // sent to the client, unless nil
	receipt       *string            // receipt ID requested by DISCONNECT; nil if none
	connBroken    bool               // the connection has broken: nothing can be sent to the client

	timer *time.Timer // calls abort
}

var errStopping = errors.New("peerlink is stopping: connect again later")

func newSession(d *Door, conn *stomp.Conn, log *slog.Logger) *session {
	s := &session{
		door:          d,
		conn:          conn,
		log:           log,
		wake:          wait.NewSignal(),
		slotFreed:     wait.NewSignal(),
		aborted:       make(chan struct{}),
		subscriptions: make(map[subscriptionKey]*subscription),
	}
	s.transactions.open = make(map[string]*transaction)
	s.opCtx, s.cancelOps = context.WithCancel(context.Background())
	return s
}

// run runs the session until it has ended, and returns why, nil after DISCONNECT. When ctx is
// done, the session ends with errStopping.
func (s *session) run(ctx context.Context) error {
	stopped := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(stopped)
		s.fail(errStopping)
		time.AfterFunc(s.door.bounds.stopTime/2, func() { // to end even if the disk does not respond
			s.cancelOps()
			s.wake.Notify()
		})
	})
	defer func() {
		if !stop() {
			<-stopped
		}
	}()
	reading := make(chan struct{})
	go func() {
		defer close(reading)
		s.read()
	}()
	for s.running() {
		<-s.wake
		s.writeReceipts()
	}

	s.unsubscribeAll()
	for !s.end.connBroken && s.hasPending() && s.opCtx.Err() == nil {
		<-s.wake
		s.writeReceipts()
	}
	if !s.end.timer.Stop() {
		<-s.aborted
	}
	s.cancelOps()
	s.sendLastFrame()
	s.conn.Close()
	<-reading
	return s.end.err
}

// sendLastFrame sends the last frame to the client, and closes the connection, unless the
// connection has broken.
func (s *session) sendLastFrame() {
	var err error
	switch {
	case s.end.connBroken:
		return
	case s.end.errorToClient != nil:
		err = s.conn.Fail(s.end.errorToClient)
	case s.end.receipt != nil:
		err = s.conn.WriteFrame(stomp.NewFrame("RECEIPT", "receipt-id", *s.end.receipt))
		fallthrough
	default:
		err = errors.Join(err, s.conn.CloseAfterFlush(stomp.CloseTimeout))
	}
	if err != nil {
		s.log.Debug("the last frame of a session could not be sent to a local application", "err", err)
	}
}

// read reads frames until the session ends.
func (s *session) read() {
	for {
		f, err := s.conn.ReadFrame()
		if err != nil {
			s.beginEnd(endReasonOf(err))
			return
		}
		op := &operation{session: s, command: strings.Clone(f.Command)}
		if receipt, ok := f.Get("receipt"); ok {
			receipt = strings.Clone(receipt) // the clone does not keep the rest of the frame's head
			op.receipt = &receipt
		}
		if f.Command == "DISCONNECT" {
			s.beginEnd(endReason{receipt: op.receipt})
			return
		}
		if !s.beginOperation() {
			return
		}
		if err := s.handle(f, op); err != nil {
			op.done(err)
			return
		}
	}
}

// endReasonOf returns how the session ends after a read error. After io.EOF, the connection
// is not broken: a client that has closed its side without DISCONNECT may still read.
func endReasonOf(err error) endReason {
	var violation *stomp.ProtocolError
	switch {
	case errors.Is(err, io.EOF):
		return endReason{err: err}
	case errors.As(err, &violation), errors.Is(err, stomp.ErrSilent):
		return endReason{err: err, errorToClient: explain(err, "")}
	default:
		return endReason{err: err, connBroken: true}
	}
}

// fail ends the session with an ERROR. err is not that of a frame.
func (s *session) fail(err error) {
	s.beginEnd(endReason{err: err, errorToClient: explain(err, notRemoved)})
}

// failConnection ends the session because the connection has broken.
func (s *session) failConnection(err error) { s.beginEnd(endReason{err: err, connBroken: true}) }

// beginEnd starts to end the session for a reason, unless it is ending already. After that
// no operation begins.
func (s *session) beginEnd(e endReason) {
	s.mu.Lock()
	if s.end == nil {
		e.timer = time.AfterFunc(s.door.bounds.endTime, s.abort)
		s.end = &e
	}
	s.mu.Unlock()
	s.wake.Notify()
	s.slotFreed.Notify()
}

// abort unblocks all goroutines that wait for the client or for the disk.
func (s *session) abort() {
	defer close(s.aborted)
	s.cancelOps()
	s.conn.Close()
	s.wake.Notify()
}

// running reports whether the session has not begun to end.
func (s *session) running() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.end == nil
}

// hasPending reports whether operations are in progress.
func (s *session) hasPending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.pending > 0
}

// beginOperation counts an operation as pending, and waits while too many operations are
// pending. It returns false if the session has begun to end.
func (s *session) beginOperation() bool {
	for {
		if ok, ending := s.tryBeginOperation(); ok || ending {
			return ok
		}
		<-s.slotFreed
	}
}

func (s *session) tryBeginOperation() (ok, ending bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.end != nil {
		return false, true
	}
	if s.pending == s.door.bounds.pending {
		return false, false
	}
	s.pending++
	return true, false
}

// completed counts n operations as no longer pending.
func (s *session) completed(n int) {
	s.mu.Lock()
	s.pending -= n
	ending := s.end != nil
	s.mu.Unlock()
	s.slotFreed.Notify()
	if ending {
		s.wake.Notify()
	}
}

// queueReceipt queues the receipt of an operation. It does not block, because the store's
// writer calls it.
func (s *session) queueReceipt(receipt string) {
	s.mu.Lock()
	s.receipts = append(s.receipts, receipt)
	s.mu.Unlock()
	s.wake.Notify()
}

// writeReceipts writes the queued receipts. Only run may call it.
func (s *session) writeReceipts() {
	s.mu.Lock()
	receipts := s.receipts
	s.receipts = nil
	s.mu.Unlock()
	if len(receipts) == 0 {
		return
	}
	f := stomp.NewFrame("RECEIPT", "receipt-id", "")
	for _, receipt := range receipts {
		f.Headers[0].Value = receipt
		if err := s.conn.WriteFrame(f); err != nil {
			s.failConnection(err)
			break
		}
	}
	s.completed(len(receipts))
}
