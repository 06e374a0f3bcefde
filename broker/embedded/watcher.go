package embedded

import (
	"context"
	"sync"

	"peerlink/broker"
	"peerlink/internal/wait"
)

// watchBuffer is how many messages a Watcher holds that were not asked for yet.
const watchBuffer = 256

// Watcher gets copies of the messages that are put into an inbox, and leaves
// them there. It never delays anyone: what it is too slow for, it misses.
type Watcher struct {
	store   *Store
	inbox   string
	nextMu  ctxMutex
	arrived wait.Signal
	once    sync.Once
	closed  chan struct{}
	err     error // why it never worked

	last  uint64    // the last message given or missed
	found []Message // read from the file, to be given

	mu      sync.Mutex
	offered []offer // by the writer
}

// offer is a message that was just stored.
type offer struct {
	seq     uint64
	message *broker.Incoming
}

// Watch starts watching an inbox (or a peer's queue), from now on. Messages
// that another process puts there are seen too, unless they are taken out
// before this store has noticed.
func (s *Store) Watch(inbox string) *Watcher {
	w := &Watcher{store: s, inbox: inbox, nextMu: newCtxMutex(), arrived: wait.NewSignal(), closed: make(chan struct{})}
	s.notifier.add(inbox, w.arrived, w)
	w.err = s.read(context.Background(), "begin to watch "+inbox, func(r *readConn) (err error) {
		w.last, _, err = r.lastSeq(inbox)
		return err
	})
	return w
}

// offer shows the watcher messages just stored, of which the first has this
// sequence number.
func (w *Watcher) offer(first uint64, added []row) {
	w.mu.Lock()
	defer w.mu.Unlock()
	room := watchBuffer - len(w.offered)
	for i, r := range added[:min(room, len(added))] {
		w.offered = append(w.offered, offer{first + uint64(i), r.message})
	}
}

// Next waits for the next message. missed is how many came between the last
// one and this, and can not be shown any more. The message shares its memory
// with others: it must not be changed.
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

// peek returns the next message there is; seq is 0 if there is none. Where the
// writer's offers leave a gap, it looks into the file: the messages may have
// come from another process, or when there were too many to offer.
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

// nextOffer returns the first offer that is still news.
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

// Close ends the watching.
func (w *Watcher) Close() error {
	w.once.Do(func() {
		close(w.closed)
		w.store.notifier.remove(w.inbox, w.arrived)
	})
	return nil
}
