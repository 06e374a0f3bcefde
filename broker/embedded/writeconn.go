package embedded

import (
	"database/sql/driver"
	"fmt"
	"os"
	"strings"
)

// insertRows is how many messages one INSERT stores. More are not faster.
const insertRows = 16

// insertColumns is how many columns table messages has.
const insertColumns = 10

const (
	// walKept is the size in bytes to which SQLite cuts the write-ahead log
	// when it starts it over.
	walKept = 32 << 20
	// walLimit is the size from which we insist on starting it over. SQLite
	// itself waits for a moment in which nobody reads, and under load there
	// may be none.
	walLimit = 64 << 20
)

// writeConn is the connection that writes, with its statements and what it
// knows of the file without reading it (the cache). It belongs to the writer's goroutine.
type writeConn struct {
	*conn
	turnstile fairLock
	places    []fileIdentity // the file and its write-ahead log
	walPath   string
	walLimit  int64 // size of the write-ahead log from which to start it over
	nextWAL   int64 // size at which to try that next

	epoch      int64  // of the messages stored by this connection; see identity.go
	token      uint32 // of the last transaction; see pair.go
	tokenKnown bool
	version    int64    // PRAGMA data_version: changes when another connection commits
	catalog    *catalog // nil: to be read

	begin, commit, rollback           *stmt
	dataVersion, checkpoint, restart  *stmt
	freePages, incrementalVacuum      *stmt
	applicationID                     *stmt
	allQueues, allBindings            *stmt
	queueState, addQueue, updateQueue *stmt
	insert, insertMany                *stmt
	removeRange, moveAside            *stmt
	minSeq, truncate                  *stmt
	moveBack, removeAside             *stmt
	bind, unbind                      *stmt
	allUsage, addUsage                *stmt
}

func openWriteConn(path string, opts Options) (*writeConn, error) {
	makeRoomToOpen(path, opts.Service)
	if err := create(path, opts.Logger); err != nil {
		return nil, err
	}
	if err := checkPair(path); err != nil {
		return nil, err
	}
	c, err := dial(path)
	if err != nil {
		return nil, err
	}
	w := &writeConn{conn: c, turnstile: newFairLock(path), walPath: path + "-wal", walLimit: walLimit, nextWAL: walLimit, epoch: newEpoch()}
	if err := prepareFile(c); err != nil {
		c.close()
		return nil, err
	}
	if err := checkOwner(c, opts.Owner, opts.Service); err != nil {
		c.close()
		return nil, err
	}
	if opts.Service {
		if err := checkDamage(c); err != nil {
			c.close()
			return nil, err
		}
		if err := makeShrinkable(c); err != nil {
			opts.Logger.Warn("the message store can not give room back to the disk yet", "err", err)
		}
	}
	if err := w.prepareStatements(); err != nil {
		c.close()
		return nil, err
	}
	if opts.Service {
		w.noteOpen()
	}
	// SQLite makes the write-ahead log when it reads the first time.
	if _, err := w.allQueues.number(); err != nil {
		c.close()
		return nil, err
	}
	for _, file := range []string{path, w.walPath} {
		p, err := newFileIdentity(file)
		if err != nil {
			c.close()
			return nil, err
		}
		w.places = append(w.places, p)
	}
	return w, nil
}

// inPlace reports [ErrGone] if what is written would not be found by the next
// one to open the store.
func (w *writeConn) inPlace() error {
	for _, p := range w.places {
		if err := p.check(); err != nil {
			return err
		}
	}
	return nil
}

func (w *writeConn) prepareStatements() error {
	values := "(?" + strings.Repeat(", ?", insertColumns-1) + ")"
	const (
		columns = "queue, seq, arrived, type, content_type, routing_key, headers, body"
		insert  = "INSERT INTO messages (" + columns + ", peer, epoch) VALUES "
	)
	p := preparer{conn: w.conn}
	w.begin = p.stmt("BEGIN IMMEDIATE")
	w.commit = p.stmt("COMMIT")
	w.rollback = p.stmt("ROLLBACK")
	w.dataVersion = p.stmt("PRAGMA data_version")
	w.checkpoint = p.stmt("PRAGMA wal_checkpoint(TRUNCATE)")
	w.applicationID = p.stmt("PRAGMA application_id")
	w.restart = p.stmt("PRAGMA wal_checkpoint(RESTART)")
	w.freePages = p.stmt("PRAGMA freelist_count")
	w.incrementalVacuum = p.stmt(fmt.Sprintf("PRAGMA incremental_vacuum(%d)", shrinkStep/pageSize))
	w.allQueues = p.stmt("SELECT id, name, next_seq FROM queues")
	w.allBindings = p.stmt("SELECT peer, exchange, binding_key, fanout, queue FROM bindings")
	w.queueState = p.stmt("SELECT next_seq, depth FROM queues WHERE id = ?")
	w.addQueue = p.stmt("INSERT INTO queues (name, next_seq, depth) VALUES (?, 1, 0) RETURNING id")
	w.updateQueue = p.stmt("UPDATE queues SET next_seq = ?, depth = ? WHERE id = ?")
	w.insert = p.stmt(insert + values)
	w.insertMany = p.stmt(insert + values + strings.Repeat(", "+values, insertRows-1))
	w.removeRange = p.stmt("DELETE FROM messages WHERE queue = ? AND seq BETWEEN ? AND ?")
	w.minSeq = p.stmt("SELECT coalesce(min(seq), 0) FROM messages WHERE queue = ?")
	w.truncate = p.stmt("PRAGMA wal_checkpoint(TRUNCATE)")
	w.moveAside = p.stmt("INSERT INTO set_aside (" + columns + ", at, reason)" +
		" SELECT " + columns + ", ?, ? FROM messages WHERE queue = ? AND seq = ?")
	w.moveBack = p.stmt("INSERT INTO messages (" + columns + ", epoch)" +
		" SELECT queue, ?, ?, type, content_type, routing_key, headers, body, ? FROM set_aside WHERE queue = ? AND seq = ?")
	w.removeAside = p.stmt("DELETE FROM set_aside WHERE queue = ? AND seq = ?")
	w.bind = p.stmt("INSERT OR REPLACE INTO bindings (peer, exchange, binding_key, fanout, queue) VALUES (?, ?, ?, ?, ?)")
	w.unbind = p.stmt("DELETE FROM bindings WHERE peer = ?")
	w.allUsage = p.stmt("SELECT peer, bytes FROM usage")
	w.addUsage = p.stmt("INSERT INTO usage (peer, bytes) VALUES (?1, max(?2, 0))" +
		" ON CONFLICT (peer) DO UPDATE SET bytes = max(bytes + ?2, 0) RETURNING bytes")
	return p.err
}

func (w *writeConn) close() error {
	w.turnstile.close()
	w.leaveOneFile()
	return w.conn.close()
}

// lastSeqs returns the last sequence number given in each queue.
func (w *writeConn) lastSeqs() (map[string]uint64, error) {
	last := make(map[string]uint64)
	err := w.allQueues.query(func(cols []driver.Value) bool {
		last[text(cols[1])] = uint64(number(cols[2]) - 1)
		return true
	})
	return last, err
}

// usage returns how many bytes the received messages of each peer take.
func (w *writeConn) usage() (map[string]int64, error) {
	usage := make(map[string]int64)
	err := w.allUsage.query(func(cols []driver.Value) bool {
		usage[text(cols[0])] = number(cols[1])
		return true
	})
	return usage, err
}

// changedByOthers reports whether another connection has committed since the
// last call. What is cached is then dropped.
func (w *writeConn) changedByOthers() (bool, error) {
	v, err := w.dataVersion.number()
	if err != nil {
		return false, err
	}
	changed := v != w.version
	if changed {
		w.version = v
		w.catalog, w.tokenKnown = nil, false
	}
	return changed, nil
}

// start begins a transaction.
func (w *writeConn) start() error {
	w.turnstile.lock()
	defer w.turnstile.unlock()
	_, err := w.begin.exec()
	return err
}

// undo ends a transaction that has failed. SQLite may have done so by itself,
// so there is nothing to report: if a transaction were still open, the next
// one could not begin, and would end up here again.
func (w *writeConn) undo() {
	_, _ = w.rollback.exec()
	w.catalog, w.tokenKnown = nil, false
}

// boundWAL keeps the write-ahead log from growing without end.
func (w *writeConn) boundWAL() error {
	info, err := os.Stat(w.walPath)
	if err != nil || info.Size() < w.nextWAL {
		return nil
	}
	// Another process may be reading for hours. Don't wait for it after every
	// transaction, only each time the log has doubled.
	w.nextWAL = 2 * info.Size()
	busy, err := w.checkpoint.number()
	if err != nil || busy != 0 {
		return err
	}
	w.nextWAL = w.walLimit
	return nil
}

// bindRow sets the arguments of an INSERT for its i-th message.
func bindRow(s *stmt, i int, queue, seq, arrived, epoch int64, r row) {
	m := r.message
	s.bind(i*insertColumns, queue, seq, arrived, m.Type, m.ContentType, m.RoutingKey, r.headers, m.Body, m.Peer, epoch)
}

// moveRow takes the arguments of the i-th message over to an INSERT for one.
func moveRow(one, many *stmt, i int) {
	for j := range insertColumns {
		one.bind(j, many.args[i*insertColumns+j].Value)
	}
}
