package embedded

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"peerlink/broker"
)

// setRefusing makes submit refuse messages of applications with err, until it is called
// with nil.
func (w *writer) setRefusing(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refusing = err
}

// refusal returns the error for messages of applications that are refused because of err.
func refusal(err error) error {
	switch {
	case errors.Is(err, ErrFull), errors.Is(err, ErrUnwritable):
		return err
	case isFull(err):
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return fmt.Errorf("%w: %w", ErrUnwritable, err)
}

// lastError returns the error of the present problem: of the last attempt or check that has
// failed. It returns nil if there is no problem.
func (w *writer) lastError() error {
	if t := w.problem.Load(); t != nil {
		return t.Err
	}
	return nil
}

// failPostponed finishes, with broker.ErrClosed and the reason, the operations that could not
// be written before the store was closed.
func (w *writer) failPostponed() {
	if len(w.postponed) == 0 {
		return
	}
	w.err = fmt.Errorf("%w: %d operations could not be written: %w", broker.ErrClosed, len(w.postponed), w.lastError())
	for _, o := range w.postponed {
		w.release(o)
		o.finish(w.err)
	}
}

// checkRoom returns an error if there is no space for the messages that the operations
// store, or if no message is stored because the reserve is missing.
func (w *writer) checkRoom(ops []op) error {
	n := needOf(ops)
	if n.kind == maintenance {
		return nil
	}
	return w.checkRoomFor(n)
}

func (w *writer) checkRoomFor(n need) error {
	if w.reserve.missing {
		return cmp.Or(w.reserve.err, fmt.Errorf("%w: its reserve of %d bytes is missing, and there is no space to make it", ErrFull, w.reserve.size))
	}
	err := w.disk.checkRoom(n.kind, n.bytes)
	if err != nil && w.db.walBytes() > w.db.keptWAL {
		_ = w.db.truncateWAL() // while space is missing, that of the write-ahead log is needed for messages
		err = w.disk.checkRoom(n.kind, n.bytes)
	}
	return err
}

// need is what a transaction needs space for.
type need struct {
	kind  kind  // the highest kind of its operations: fromApplication if it stores a message of an application
	bytes int64 // size of the messages that it stores; for more than a budget, see quantity
}

// raiseTo makes each field of n at least that of other.
func (n *need) raiseTo(other need) {
	n.kind, n.bytes = max(n.kind, other.kind), max(n.bytes, other.bytes)
}

// needOf returns what a transaction with these operations needs.
func needOf(ops []op) need {
	ours, peers := storedQuantities(ops)
	n := need{maintenance, ours.bytes + peers.bytes}
	switch {
	case ours.messages > 0:
		n.kind = fromApplication
	case peers.messages > 0:
		n.kind = fromPeer
	}
	return n
}

// storedQuantities returns the number and size of the messages that the operations store: of
// the node's own applications (ours), and of peers.
func storedQuantities(ops []op) (ours, peers quantity) {
	for _, o := range ops {
		switch k, part := o.cost(); k {
		case fromApplication:
			ours.add(part)
		case fromPeer:
			peers.add(part)
		}
	}
	return ours, peers
}

// refuseIfNoRoom refuses the messages of applications, and returns the other operations, if
// there is too little space for all messages, but enough for those of peers: messages of
// peers may use space that messages of applications may not. Otherwise it returns ops.
func (w *writer) refuseIfNoRoom(ops []op) []op {
	ours, peers := storedQuantities(ops)
	if ours.messages == 0 || peers.messages == 0 || w.reserve.missing {
		return ops
	}
	if err := w.disk.checkRoom(fromApplication, ours.bytes+peers.bytes); err != nil && w.disk.checkRoom(fromPeer, peers.bytes) == nil {
		return w.refuse(ops, err)
	}
	return ops
}

// refuse finishes, with an error because of err, the operations that store messages of
// applications, and returns the others.
func (w *writer) refuse(ops []op, err error) []op {
	err = refusal(err)
	return slices.DeleteFunc(slices.Clone(ops), func(o op) bool {
		k, _ := o.cost()
		if k == fromApplication {
			w.release(o)
			o.finish(err)
		}
		return k == fromApplication
	})
}
