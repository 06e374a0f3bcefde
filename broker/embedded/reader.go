package embedded

import (
	"context"
	"database/sql/driver"
	"runtime"
	"strconv"
	"time"

	"peerlink/broker"
)

// readBytes bounds the size of the messages of one read, approximately: the read
// ends with the message that reaches the bound.
const readBytes = 1 << 20

// readers is a pool of connections for reading. It is small, because reads are short.
type readers struct {
	free   chan *readConn
	closed chan struct{}
}

func openReaders(path string) (*readers, error) {
	n := min(max(2, runtime.GOMAXPROCS(0)), 4)
	r := &readers{free: make(chan *readConn, n), closed: make(chan struct{})}
	for range n {
		c, err := openReadConn(path)
		if err != nil {
			for range len(r.free) {
				(<-r.free).close()
			}
			return nil, err
		}
		r.free <- c
	}
	return r, nil
}

// use calls f with a free connection, and waits for one if necessary.
func (r *readers) use(ctx context.Context, f func(*readConn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c := <-r.free:
		defer func() { r.free <- c }()
		return f(c)
	case <-ctx.Done():
		return ctx.Err()
	case <-r.closed:
		return broker.ErrClosed
	}
}

// close waits until no connection is in use, and closes them all.
func (r *readers) close() {
	close(r.closed)
	for range cap(r.free) {
		(<-r.free).close()
	}
}

// readConn is a connection for reading, with its statements.
type readConn struct {
	*conn
	deliveries, messages, deadLetters *stmt
	nextSeq, queueStats, queueInfo    *stmt
	bound                             *stmt
}

func openReadConn(path string) (*readConn, error) {
	c, err := openConn(path)
	if err != nil {
		return nil, err
	}
	const (
		columns = "seq, arrived, type, content_type, routing_key, headers, body"
		after   = " WHERE queue = (SELECT id FROM queues WHERE name = ?) AND seq > ? ORDER BY seq LIMIT ?"
	)
	r := &readConn{conn: c}
	p := preparer{conn: c}
	r.deliveries = p.stmt("SELECT seq, type, content_type, body FROM messages" + after)
	r.messages = p.stmt("SELECT " + columns + ", peer, epoch, counted FROM messages" + after)
	r.deadLetters = p.stmt("SELECT " + columns + ", at, reason FROM set_aside" + after)
	r.nextSeq = p.stmt("SELECT next_seq FROM queues WHERE name = ?")
	r.queueStats = p.stmt(selectQueueStats)
	r.queueInfo = p.stmt("SELECT depth," +
		" (SELECT count(*) FROM set_aside WHERE queue = queues.id)," +
		" (SELECT min(at) FROM set_aside WHERE queue = queues.id)," +
		" (SELECT arrived FROM messages WHERE queue = queues.id ORDER BY seq LIMIT 1)" +
		" FROM queues WHERE name = ?")
	r.bound = p.stmt("SELECT count(*) FROM bindings WHERE peer = ? AND exchange = ? AND binding_key = ? AND fanout = ?" +
		" AND queue = (SELECT id FROM queues WHERE name = ?)")
	if p.err == nil {
		p.err = c.exec("PRAGMA query_only = ON")
	}
	if p.err != nil {
		c.close()
		return nil, p.err
	}
	return r, nil
}

// lastSeq returns the last sequence number assigned in a queue.
func (r *readConn) lastSeq(queue string) (seq uint64, exists bool, err error) {
	next, err := r.nextSeq.number(queue)
	if err != nil || next == 0 {
		return 0, false, err
	}
	return uint64(next - 1), true, nil
}

// readDeliveries reads messages with sequence numbers greater than after from a peer's
// queue.
func (r *readConn) readDeliveries(queue string, after uint64, limit int) ([]broker.Delivery, error) {
	var found []broker.Delivery
	size := 0
	err := r.deliveries.query(func(cols []driver.Value) bool {
		d := broker.Delivery{Tag: uint64(number(cols[0])), Outgoing: broker.Outgoing{
			Type:        text(cols[1]),
			ContentType: text(cols[2]),
			Body:        blob(cols[3]),
		}}
		found = append(found, d)
		size += rowOverhead + len(d.Body)
		return size < readBytes
	}, queue, int64(after), int64(limit))
	return found, err
}

// readMessages reads messages with sequence numbers greater than after from a queue, with
// all of their columns. It returns [errDamaged] if the first of them is damaged, and
// otherwise ends before a damaged one.
func (r *readConn) readMessages(queue string, after uint64, limit int) ([]Message, error) {
	var found []Message
	size := 0
	var damaged error
	err := r.messages.query(func(cols []driver.Value) bool {
		var m Message
		if m, damaged = scanMessage(queue, cols); damaged != nil {
			return false
		}
		m.Peer, m.ID = text(cols[7]), messageID(number(cols[8]), m.Seq)
		m.size = rowSize(m.RoutingKey, m.Type, m.ContentType, text(cols[5]), m.Body)
		m.counted = countedOf(number(cols[9]), m.size)
		found = append(found, m)
		size += m.size
		return size < readBytes
	}, queue, int64(after), int64(limit))
	if err == nil && len(found) == 0 {
		err = damaged
	}
	return found, err
}

// readDeadLetters reads dead letters of a queue with sequence numbers greater than after; last
// is the sequence number of the last dead letter returned. It returns [errDamaged] as
// readMessages does.
func (r *readConn) readDeadLetters(queue string, after uint64, limit int) (found []broker.DeadLetter, last uint64, err error) {
	size := 0
	var damaged error
	err = r.deadLetters.query(func(cols []driver.Value) bool {
		var m Message
		if m, damaged = scanMessage(queue, cols); damaged != nil {
			return false
		}
		last = m.Seq
		reason := text(cols[8])
		found = append(found, broker.DeadLetter{
			ID:       strconv.FormatUint(m.Seq, 10),
			At:       time.UnixMilli(number(cols[7])),
			Reason:   reason,
			Outgoing: broker.Outgoing{Type: m.Type, ContentType: m.ContentType, Body: m.Body},
		})
		size += rowOverhead + len(m.Body) + len(reason)
		return size < readBytes
	}, queue, int64(after), int64(limit))
	if err == nil && len(found) == 0 {
		err = damaged
	}
	return found, last, err
}

// readSeqs reads messages of a queue with these ascending sequence numbers, as far as they
// exist. lookedUp is how many of seqs it has looked up until the messages reached readBytes.
func (r *readConn) readSeqs(queue string, seqs []uint64) (found []Message, lookedUp int, err error) {
	size := 0
	for _, seq := range seqs {
		m, err := r.readMessages(queue, seq-1, 1)
		if err != nil {
			return nil, 0, err
		}
		lookedUp++
		if len(m) == 1 && m[0].Seq == seq {
			found = append(found, m[0])
			size += rowOverhead + len(m[0].Body)
		}
		if size >= readBytes {
			break
		}
	}
	return found, lookedUp, nil
}
