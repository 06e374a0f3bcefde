package embedded

import (
	"database/sql/driver"
	"fmt"
	"slices"
	"time"

	"peerlink/broker"
)

// tx is the current transaction; operations use its methods. put and remove collect messages, to
// write many of them with one statement, which is cheaper; finish writes the rest. The other
// methods execute their statements immediately.
type tx struct {
	*writeConn
	now         int64                   // Unix milliseconds
	queues      map[int64]*queueChanges // the queues that operations have used, by ID
	usageChange map[string]int64        // by sending peer: change of the total size, in bytes, of the stored messages from it
	usage       map[string]int64        // by sending peer: total size, in bytes, of the stored messages from it; set by finish
	inserts     int                     // number of rows that are bound to insertMany, and not inserted yet
}

// queueChanges collects the changes of one queue in a transaction.
type queueChanges struct {
	id, nextSeq, depth int64 // as in table queues, with the changes; removed is subtracted from depth by finish
	name               string
	first              uint64   // sequence number of added[0], unless gaps
	added              []row    // new messages, without those that were moved back
	gaps               bool     // the sequence numbers of added have gaps, for messages that were moved back or became dead letters
	removed            []uint64 // sequence numbers passed to remove, unsorted
}

func newTx(w *writeConn) *tx {
	return &tx{writeConn: w, now: time.Now().UnixMilli(), queues: make(map[int64]*queueChanges), usageChange: make(map[string]int64)}
}

// queue returns the queueChanges of a queue, or [broker.ErrNoQueue] if it does not exist.
func (t *tx) queue(name string) (*queueChanges, error) {
	c, err := t.cachedCatalog()
	if err != nil {
		return nil, err
	}
	id, ok := c.queueIDs[name]
	if !ok {
		return nil, fmt.Errorf("%w: %s", broker.ErrNoQueue, name)
	}
	return t.queueByID(id)
}

// makeQueue returns the queueChanges of a queue, and creates the queue if it does not exist.
func (t *tx) makeQueue(name string) (*queueChanges, error) {
	c, err := t.cachedCatalog()
	if err != nil {
		return nil, err
	}
	id, ok := c.queueIDs[name]
	if !ok {
		if id, err = t.addQueue.number(name); err != nil {
			return nil, err
		}
		c.addQueue(id, name)
	}
	return t.queueByID(id)
}

func (t *tx) queueByID(id int64) (*queueChanges, error) {
	if q := t.queues[id]; q != nil {
		return q, nil
	}
	c, err := t.cachedCatalog()
	if err != nil {
		return nil, err
	}
	q := &queueChanges{id: id, name: c.queueNames[id]}
	if err := t.queueState.query(func(cols []driver.Value) bool {
		q.nextSeq, q.depth = number(cols[0]), number(cols[1])
		return false
	}, id); err != nil {
		return nil, err
	}
	if q.nextSeq == 0 {
		return nil, fmt.Errorf("%w: a binding leads to queue %d", broker.ErrNoQueue, id)
	}
	q.first = uint64(q.nextSeq)
	t.queues[id] = q
	return q, nil
}

// put appends a message to a queue.
func (t *tx) put(q *queueChanges, r row) error {
	bindRow(t.insertMany, t.inserts, q.id, q.nextSeq, t.now, t.epoch, r)
	q.nextSeq++
	q.depth++
	q.added = append(q.added, r)
	if n := r.counted(); n > 0 {
		t.usageChange[r.message.Peer] += n
	}
	t.inserts++
	if t.inserts < insertRows {
		return nil
	}
	t.inserts = 0
	_, err := t.insertMany.run()
	return err
}

// remove removes single messages from a queue; freed maps each sending peer to the bytes that
// were counted of those that were received from it.
func (t *tx) remove(queue string, seqs []uint64, freed map[string]int64) error {
	q, err := t.queue(queue)
	if err != nil {
		return err
	}
	q.removed = append(q.removed, seqs...)
	for peer, n := range freed {
		t.usageChange[peer] -= n
	}
	return nil
}

// removeThrough removes all messages of a peer's queue up to and including seq, except those in
// except, which is sorted. It does not change the usage of peers, as removing received messages must.
func (t *tx) removeThrough(queue string, seq uint64, except []uint64) error {
	q, err := t.queue(queue)
	if err != nil {
		return err
	}
	first := uint64(0)
	for _, e := range except {
		if e > seq {
			break
		}
		if err := t.removeBetween(q, first, e-1); err != nil {
			return err
		}
		first = e + 1
	}
	return t.removeBetween(q, first, seq)
}

// firstSeq returns the sequence number of the first message of a queue, or 0 if the queue is
// empty or does not exist. It does not take collected changes into account.
func (t *tx) firstSeq(queue string) (uint64, error) {
	q, err := t.queue(queue)
	if isOpError(err) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	n, err := t.minSeq.number(q.id)
	return uint64(n), err
}

func (t *tx) removeBetween(q *queueChanges, first, last uint64) error {
	n, err := t.removeRange.exec(q.id, int64(first), int64(last))
	q.depth -= n
	return err
}

// addDeadLetter moves a message from its queue to the dead letters, and reports whether the
// message existed.
func (t *tx) addDeadLetter(queue string, seq uint64, reason string) (bool, error) {
	q, err := t.queue(queue)
	if err != nil {
		return false, err
	}
	n, err := t.moveToDeadLetters.exec(t.now, reason, q.id, int64(seq))
	if err != nil || n == 0 {
		return false, err
	}
	return true, t.removeBetween(q, seq, seq)
}

// route returns the IDs of the queues that a message of an application is routed to.
func (t *tx) route(exchange, routingKey string) ([]int64, error) {
	c, err := t.cachedCatalog()
	if err != nil {
		return nil, err
	}
	return c.route(exchange, routingKey), nil
}

// bindPeer binds a peer's first queue, in place of the peer's previous binding, and creates
// the queue if it does not exist.
func (t *tx) bindPeer(p broker.PeerBinding) error {
	q, err := t.makeQueue(p.Queues[0])
	if err != nil {
		return err
	}
	c, err := t.cachedCatalog()
	if err != nil {
		return err
	}
	b := binding{Exchange: p.Exchange, Key: p.BindingKey, Fanout: p.Fanout, Target: q.id}
	if old, ok := c.bindings[p.PeerID]; ok && old == b {
		return nil
	}
	if _, err := t.bind.exec(p.PeerID, b.Exchange, b.Key, b.Fanout, b.Target); err != nil {
		return err
	}
	c.setBinding(p.PeerID, &b)
	return nil
}

// unbindPeer removes the binding of a peer.
func (t *tx) unbindPeer(peer string) error {
	c, err := t.cachedCatalog()
	if err != nil {
		return err
	}
	if _, ok := c.bindings[peer]; !ok {
		return nil
	}
	if _, err := t.unbind.exec(peer); err != nil {
		return err
	}
	c.setBinding(peer, nil)
	return nil
}

// finish writes the collected changes.
func (t *tx) finish() error {
	for i := range t.inserts {
		moveRow(t.insert, t.insertMany, i)
		if _, err := t.insert.run(); err != nil {
			return err
		}
	}
	t.inserts = 0
	for _, q := range t.queues {
		if err := t.removeRuns(q); err != nil {
			return err
		}
		if _, err := t.updateQueue.exec(q.nextSeq, q.depth, q.id); err != nil {
			return err
		}
	}
	return t.writeUsage()
}

// writeUsage updates the stored total sizes of the messages from each peer, and sets t.usage.
func (t *tx) writeUsage() error {
	t.usage = make(map[string]int64, len(t.usageChange))
	for peer, n := range t.usageChange {
		bytes, err := t.addUsage.number(peer, n)
		if err != nil {
			return err
		}
		t.usage[peer] = bytes
	}
	return nil
}

// removeRuns removes the messages in q.removed, with one statement for each run of
// consecutive ones.
func (t *tx) removeRuns(q *queueChanges) error {
	slices.Sort(q.removed)
	for i := 0; i < len(q.removed); {
		first, last := q.removed[i], q.removed[i]
		for i++; i < len(q.removed) && q.removed[i] <= last+1; i++ {
			last = q.removed[i]
		}
		if err := t.removeBetween(q, first, last); err != nil {
			return err
		}
	}
	return nil
}
