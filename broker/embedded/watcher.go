package embedded

import (
	"context"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// watchBuffer is how many messages a Watcher buffers until Next is called.
const watchBuffer = 256

// Watcher receives copies of the messages that are stored in an inbox, and does not remove
// them. It never blocks the writer: if Next is called too rarely, messages are missed.
type Watcher struct {
	store   *Store
	inbox   string
	nextMu  ctxMutex
	arrived wait.Signal
	once    sync.Once
	closed  chan struct{}
	err     error // why Watch failed; nil if it did not

	last  uint64    // the last message returned or missed
	found []Message // read from the file, not returned yet

	mu      sync.Mutex
	offered []offer // by the writer
}

// offer is a message that has just been stored.
type offer struct {
	seq     uint64
	message *broker.Incoming
}

// Watch starts to watch an inbox (or a peer's queue). Messages that another process stores
// are seen too, unless they are removed before this store has detected them.
func (s *Store) Watch(inbox string) *Watcher {
	w := &Watcher{store: s, inbox: inbox, nextMu: newCtxMutex(), arrived: wait.NewSignal(), closed: make(chan struct{})}
	s.notifier.add(inbox, w.arrived, w)
	w.err = s.read(context.Background(), "begin to watch "+inbox, func(r *readConn) (err error) {
		w.last, _, err = r.lastSeq(inbox)
		return err
	})
	return w
}

// offer buffers copies of messages that have just been stored; first is the sequence
// number of added[0].
func (w *Watcher) offer(first uint64, added []row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := watchBuffer - len(w.offered)
	for i, r := range added[:min(room, len(added))] {
		w.offered = append(w.offered, offer{first + uint64(i), r.message})
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
		seq, m, err := w.peek(ctx)
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

// peek returns the next available message; seq is 0 if there is none. If there is a gap
// before the next offered message, peek reads from the file: the missing messages may have
// been stored by another process, or while the buffer was full.
func (w *Watcher) peek(ctx context.Context) (seq uint64, m broker.Incoming, err error) {
	next := w.nextOffer()
	if len(w.found) == 0 && (next == nil || next.seq > w.last+1) {
		err := w.store.read(ctx, "watch "+w.inbox, func(r *readConn) (err error) {
			w.found, err = r.readMessages(w.inbox, w.last, watchBuffer)
			return err
		})
		if err != nil {
			return 0, m, err
		}
	}
	switch {
	case len(w.found) > 0 && (next == nil || w.found[0].Seq <= next.seq):
		seq, m = w.found[0].Seq, w.found[0].incoming(w.inbox)
		w.found = w.found[1:]
	case next != nil:
		seq, m = next.seq, *next.message
		m.Exchange = w.inbox
	}
	return seq, m, nil
}

// nextOffer returns the first buffered message after w.last.
func (w *Watcher) nextOffer() *offer {
	w.mu.Lock()
	defer w.mu.Unlock()
	for len(w.offered) > 0 && w.offered[0].seq <= w.last {
		w.offered = w.offered[1:]
	}
	if len(w.offered) == 0 {
		return nil
	}
	return &w.offered[0]
}

// Close ends watching.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.store.notifier.remove(w.inbox, w.arrived)
	})
	return nil
}
