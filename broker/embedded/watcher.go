package embedded

import (
	"context"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// watchBuffer is how many stored messages a Watcher buffers in memory, and how many it
// reads from the file at once.
const watchBuffer = 256

// Watcher receives copies of the messages that are stored in an inbox, and does not remove
// them. It never blocks the writer: messages that do not fit into its buffer are read from
// the file by Next, which misses those that were removed meanwhile.
type Watcher struct {
	store   *Store
	inbox   string
	nextMu  ctxMutex
	arrived wait.Signal
	once    sync.Once
	closed  chan struct{}
	err     error // why Watch failed; nil if it did not

	last     uint64    // sequence number of the last message returned or missed
	fromFile []Message // read from the file, and not returned yet

	mu       sync.Mutex
	buffered []bufferedMessage // added by the writer
}

// bufferedMessage is a message that has just been stored.
type bufferedMessage struct {
	seq     uint64
	message *broker.Incoming
}

// Watch starts to watch an inbox (or a peer's queue). Messages that another process stores
// are returned too, unless they are removed before this store has detected them. If Watch
// fails, Next returns the reason.
func (s *Store) Watch(inbox string) *Watcher {
	w := &Watcher{store: s, inbox: inbox, nextMu: newCtxMutex(), arrived: wait.NewSignal(), closed: make(chan struct{})}
	s.notifier.add(inbox, w.arrived, w)
	w.err = s.read(context.Background(), "begin to watch "+inbox, func(r *readConn) (err error) {
		w.last, _, err = r.lastSeq(inbox)
		return err
	})
	return w
}

// addCopies buffers messages that have just been stored, as far as the buffer has space;
// first is the sequence number of added[0].
func (w *Watcher) addCopies(first uint64, added []row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := watchBuffer - len(w.buffered)
	for i, r := range added[:min(room, len(added))] {
		w.buffered = append(w.buffered, bufferedMessage{first + uint64(i), r.message})
	}
}

// Next waits for the next message. missed is the number of messages since the previous one
// that are not available any more. The message shares memory with other users: the caller
// must not modify it.
func (w *Watcher) Next(ctx context.Context) (m broker.Incoming, missed uint64, err error) {
	if err := w.nextMu.lock(ctx, w.closed); err != nil {
		return broker.Incoming{}, 0, err
	}
	defer w.nextMu.unlock()
	if w.err != nil {
		return broker.Incoming{}, 0, w.err
	}
	for {
		seq, m, err := w.takeNext(ctx)
		if err != nil {
			return broker.Incoming{}, 0, err
		}
		if seq > 0 {
			missed := seq - w.last - 1
			w.last = seq
			return m, missed, nil
		}
		if err := w.store.waitFor(ctx, w.arrived, w.closed); err != nil {
			return broker.Incoming{}, 0, err
		}
	}
}

// takeNext returns the next available message; seq is 0 if there is none. If there is a gap
// before the next buffered message, takeNext reads from the file: the messages in the gap may
// have been stored by another process, or while the buffer was full.
func (w *Watcher) takeNext(ctx context.Context) (seq uint64, m broker.Incoming, err error) {
	next := w.nextBuffered()
	if len(w.fromFile) == 0 && (next == nil || next.seq > w.last+1) {
		err := w.store.read(ctx, "watch "+w.inbox, func(r *readConn) (err error) {
			w.fromFile, err = r.readMessages(w.inbox, w.last, watchBuffer)
			return err
		})
		if err != nil {
			return 0, m, err
		}
	}
	switch {
	case len(w.fromFile) > 0 && (next == nil || w.fromFile[0].Seq <= next.seq):
		seq, m = w.fromFile[0].Seq, w.fromFile[0].Incoming(w.inbox)
		w.fromFile = w.fromFile[1:]
	case next != nil:
		seq, m = next.seq, *next.message
		m.Exchange = w.inbox
	}
	return seq, m, nil
}

// nextBuffered returns the first buffered message after w.last.
func (w *Watcher) nextBuffered() *bufferedMessage {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.buffered) > 0 && w.buffered[0].seq <= w.last {
		w.buffered = w.buffered[1:]
	}
	if len(w.buffered) == 0 {
		return nil
	}
	return &w.buffered[0]
}

// Close ends watching.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.store.notifier.remove(w.inbox, w.arrived)
	})
	return nil
}
