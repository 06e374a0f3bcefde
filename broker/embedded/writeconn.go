package embedded

import (
	"cmp"
	"database/sql/driver"
	"fmt"
	"strings"
)

// insertRows is how many messages one INSERT stores. Larger INSERTs are not faster.
const insertRows = 16

// insertColumns is the number of columns of table messages.
const insertColumns = 11

const (
	// walKept is the size in bytes to which SQLite truncates the write-ahead log when it
	// restarts the log.
	walKept = 32 << 20
	// maxWAL is the size in bytes from which the writer truncates the log, for which it
	// waits for readers. SQLite itself restarts the log only while there are no readers,
	// and under load there may always be some. If the disk is almost full, the limit is
	// lower; see disk.walLimit.
	maxWAL = 64 << 20
	// briefTimeout is how long, in milliseconds, truncating the log waits for a reader if there is
	// enough space: all other operations wait meanwhile.
	briefTimeout = 200
)

// writeConn is the connection for writing, with its statements and a cache of the file's
// content. It is used by the writer's goroutine only.
type writeConn struct {
	*conn
	fairLock fairLock
	files    []fileIdentity // the file and its write-ahead log
	walPath  string
	// retryTruncateAt is the size of the write-ahead log, in bytes, at which truncating it is
	// tried again; 0 if the last attempt succeeded.
	retryTruncateAt int64
	// keptWAL is the size in bytes to which the log is truncated; see walroom.go.
	keptWAL int64
	// isSpaceScarce reports whether the disk has so little space that the log stays as it is when the
	// connection is closed.
	isSpaceScarce func() bool

	epoch      int64  // of the messages stored by this connection; see identity.go
	token      uint32 // of the last transaction; see pair.go
	tokenKnown bool
	version    int64    // PRAGMA data_version: changes when another connection commits
	catalog    *catalog // nil: must be read from the file

	begin, commit, rollback               *stmt
	checkpointTruncate, checkpointRestart *stmt // return 1 if another connection prevents truncating or restarting
	checkpointPassive                     *stmt // copies what no reader prevents from being copied
	dataVersion                           *stmt
	freePages                             *stmt
	applicationID                         *stmt
	allQueues, allBindings                *stmt
	queueState, addQueue, updateQueue     *stmt
	insert, insertMany                    *stmt
	removeRange, moveToDeadLetters        *stmt
	minSeq                                *stmt
	moveBack, removeDeadLetters           *stmt
	addDeadLetterRow, routingKey          *stmt
	bind, unbind                          *stmt
	allUsage, addUsage                    *stmt
}

// openWriteConn opens a store's file for writing, and creates it if it does not exist. It makes
// the checks of [Open]. If it can not record that a service has opened the store, it returns
// no error, except for missing access.
func openWriteConn(path string, opts Options) (*writeConn, error) {
	if err := create(path, opts.Logger); err != nil {
		return nil, err
	}
	if err := checkPair(path); err != nil {
		return nil, err
	}
	isSpaceScarce := func() bool { return isSpaceScarce(path, opts) }
	if isSpaceScarce() {
		defer keepSharedMemory(path + "-shm")() // SQLite has locked it then
	}
	c, err := openConn(path)
	if err != nil {
		return nil, err
	}
	w := &writeConn{
		conn: c, fairLock: newFairLock(path), walPath: path + "-wal", epoch: newEpoch(),
		keptWAL: keptWAL(opts), isSpaceScarce: isSpaceScarce,
	}
	if err := w.open(path, opts); err != nil {
		w.keepWALIfScarce()
		c.close()
		return nil, err
	}
	return w, nil
}

// open checks and prepares the file for openWriteConn.
func (w *writeConn) open(path string, opts Options) error {
	if err := prepareFile(w.conn, opts.Service); err != nil {
		return err
	}
	if err := checkOwner(w.conn, opts.Owner, opts.Service); err != nil {
		return err
	}
	if opts.Service {
		if err := checkDamage(w.conn); err != nil {
			return err
		}
		if err := makeShrinkable(w.conn); err != nil {
			opts.Logger.Warn("the message store cannot release free space to the disk yet", "err", err)
		}
	}
	if err := w.prepareStatements(); err != nil {
		return err
	}
	if opts.Service {
		if err := w.openForService(path, opts); err != nil {
			return err
		}
	}
	// SQLite creates the write-ahead log with the first read.
	if _, err := w.allQueues.number(); err != nil {
		return err
	}
	return w.identifyFiles(path)
}

// identifyFiles sets w.files.
func (w *writeConn) identifyFiles(path string) error {
	for _, file := range []string{path, w.walPath} {
		p, err := newFileIdentity(file)
		if err != nil {
			return err
		}
		w.files = append(w.files, p)
	}
	return nil
}

// openForService records in the file that a service has opened the store, and makes the write-ahead
// log at least w.keptWAL bytes long. It returns an error only for missing access.
func (w *writeConn) openForService(path string, opts Options) error {
	err := w.recordOpen()
	if err != nil {
		// The log may have frames up to its end, as after a crash. Restarting it needs no space if
		// the file has these pages already.
		w.restartWAL()
		err = w.recordOpen()
	}
	if err != nil && opts.makeRoomToOpen(path, err) {
		w.restartWAL()
		err = w.recordOpen()
	}
	if isAccessError(err) {
		// SQLite has opened a file for reading only, and would not open it again.
		return err
	}
	_ = w.growWAL() // tried again by each check of the disk
	return nil
}

// checkNotGone returns [errGone] if the file or its write-ahead log was removed, moved or
// replaced: the next process that opens the store would not find what is written.
func (w *writeConn) checkNotGone() error {
	for _, p := range w.files {
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
		insert  = "INSERT INTO messages (" + columns + ", peer, epoch, counted) VALUES "
	)
	p := preparer{conn: w.conn}
	w.begin = p.stmt("BEGIN IMMEDIATE")
	w.commit = p.stmt("COMMIT")
	w.rollback = p.stmt("ROLLBACK")
	w.dataVersion = p.stmt("PRAGMA data_version")
	w.checkpointTruncate = p.stmt("PRAGMA wal_checkpoint(TRUNCATE)")
	w.applicationID = p.stmt("PRAGMA application_id")
	w.checkpointRestart = p.stmt("PRAGMA wal_checkpoint(RESTART)")
	w.checkpointPassive = p.stmt("PRAGMA wal_checkpoint(PASSIVE)")
	w.freePages = p.stmt("PRAGMA freelist_count")
	w.allQueues = p.stmt("SELECT id, name, next_seq FROM queues")
	w.allBindings = p.stmt("SELECT peer, exchange, binding_key, fanout, queue FROM bindings")
	w.queueState = p.stmt("SELECT next_seq, depth FROM queues WHERE id = ?")
	w.addQueue = p.stmt("INSERT INTO queues (name, next_seq, depth) VALUES (?, 1, 0) RETURNING id")
	w.updateQueue = p.stmt("UPDATE queues SET next_seq = ?, depth = ? WHERE id = ?")
	w.insert = p.stmt(insert + values)
	w.insertMany = p.stmt(insert + values + strings.Repeat(", "+values, insertRows-1))
	w.removeRange = p.stmt("DELETE FROM messages WHERE queue = ? AND seq BETWEEN ? AND ?")
	w.minSeq = p.stmt("SELECT coalesce(min(seq), 0) FROM messages WHERE queue = ?")
	w.moveToDeadLetters = p.stmt("INSERT INTO set_aside (" + columns + ", at, reason)" +
		" SELECT " + columns + ", ?, ? FROM messages WHERE queue = ? AND seq = ?")
	w.moveBack = p.stmt("INSERT INTO messages (" + columns + ", epoch, counted)" +
		" SELECT ?, ?, ?, type, content_type, routing_key, headers, body, ?, 0 FROM set_aside WHERE queue = ? AND seq = ?")
	w.addDeadLetterRow = p.stmt("INSERT INTO set_aside (" + columns + ", at, reason) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)")
	w.routingKey = p.stmt("SELECT routing_key FROM set_aside WHERE queue = ? AND seq = ?")
	w.removeDeadLetters = p.stmt("DELETE FROM set_aside WHERE queue = ? AND seq = ?")
	w.bind = p.stmt("INSERT OR REPLACE INTO bindings (peer, exchange, binding_key, fanout, queue) VALUES (?, ?, ?, ?, ?)")
	w.unbind = p.stmt("DELETE FROM bindings WHERE peer = ?")
	w.allUsage = p.stmt("SELECT peer, bytes FROM usage")
	// A sum that is wrong may be negative until it is corrected (recount).
	w.addUsage = p.stmt("INSERT INTO usage (peer, bytes) VALUES (?1, ?2)" +
		" ON CONFLICT (peer) DO UPDATE SET bytes = bytes + ?2 RETURNING bytes")
	return p.err
}

// path returns the path of the file.
func (w *writeConn) path() string { return strings.TrimSuffix(w.walPath, "-wal") }

func (w *writeConn) close() error {
	w.fairLock.close()
	w.releaseWALAtClose()
	return w.conn.close()
}

// lastSeqs returns the last sequence number assigned in each queue.
func (w *writeConn) lastSeqs() (map[string]uint64, error) {
	last := make(map[string]uint64)
	err := w.allQueues.query(func(cols []driver.Value) bool {
		last[text(cols[1])] = uint64(number(cols[2]) - 1)
		return true
	})
	return last, err
}

// usage returns, by sending peer, the total size in bytes of the stored messages from it.
func (w *writeConn) usage() (map[string]int64, error) {
	usage := make(map[string]int64)
	err := w.allUsage.query(func(cols []driver.Value) bool {
		usage[text(cols[0])] = number(cols[1])
		return true
	})
	return usage, err
}

// changedByOthers reports whether another connection has committed since the last call. If
// so, it discards the cache.
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

// start begins a transaction, and acquires the write lock with it.
func (w *writeConn) start() error {
	w.fairLock.lock()
	defer w.fairLock.unlock()
	_, err := w.begin.exec()
	return err
}

// undo rolls back a transaction that has failed, and discards the cache. SQLite may have
// rolled it back already, so errors are ignored: if the transaction were still open, the
// next one could not begin, and would be undone again.
func (w *writeConn) undo() {
	_, _ = w.rollback.exec()
	w.catalog, w.tokenKnown = nil, false
}

// boundWAL truncates the write-ahead log if it has reached limit, a size in bytes.
func (w *writeConn) boundWAL(limit int64) error {
	size := w.walBytes()
	if size < max(limit, w.retryTruncateAt) {
		return nil
	}
	// Another process may be reading for hours. Wait for it only each time that the log
	// has doubled, not after every transaction, and not long, unless the disk is short of space.
	w.retryTruncateAt = 2 * size
	if limit >= maxWAL {
		defer w.setBusyTimeout(busyTimeout)
		w.setBusyTimeout(briefTimeout)
	}
	return w.truncateWAL()
}

// setBusyTimeout sets how long, in milliseconds, a statement waits for a lock that another process
// holds.
func (w *writeConn) setBusyTimeout(milliseconds int) {
	_ = w.exec(fmt.Sprintf("PRAGMA busy_timeout = %d", milliseconds))
}

// truncateWAL checkpoints the write-ahead log, and truncates it to w.keptWAL bytes unless another
// connection prevents that, which is no error.
func (w *writeConn) truncateWAL() error {
	checkpoint := w.checkpointTruncate
	if w.keptWAL > 0 {
		checkpoint = w.checkpointRestart
	}
	busy, err := checkpoint.number()
	if err != nil || busy != 0 {
		return err
	}
	w.retryTruncateAt = 0
	if w.walBytes() <= w.keptWAL {
		return nil
	}
	// SQLite truncates the log with the first transaction in it.
	if err := w.limitWAL(w.keptWAL); err != nil {
		return err
	}
	err = w.commitChange(func() error { return nil })
	return cmp.Or(err, w.limitWAL(walKept))
}

// limitWAL sets the size in bytes to which SQLite truncates the write-ahead log when it restarts it.
func (w *writeConn) limitWAL(size int64) error {
	return w.exec(fmt.Sprintf("PRAGMA journal_size_limit = %d", size))
}

// bindRow binds a message as the i-th row of an INSERT.
func bindRow(s *stmt, i int, queue, seq, arrived, epoch int64, r row) {
	m := r.message
	s.bind(i*insertColumns, queue, seq, arrived, m.Type, m.ContentType, m.RoutingKey, r.headers, m.Body, m.Peer, epoch, r.counted())
}

// moveRow copies the columns of the i-th row of an INSERT of many messages to an INSERT of
// one.
func moveRow(one, many *stmt, i int) {
	for j := range insertColumns {
		one.bind(j, many.args[i*insertColumns+j].Value)
	}
}
