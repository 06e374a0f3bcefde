// Package embedded implements a message store inside the process: a [broker.Broker] on one
// SQLite file, for nodes that run on one machine. It also serves the node's own
// applications, which have no other broker.
//
// # Queues
//
// A queue has a name, a sequence number, and messages. A message is assigned the next
// sequence number of its queue in the transaction that stores it; numbers are assigned without
// gaps, dead letters included, and never reused. A queue is used in one of two ways at a time:
//
//   - The queue of a peer ("peer.<ID>.0") is filled by [Store.Send], which routes
//     through the bindings made by [Store.Bind], and consumed in order by one
//     [broker.Consumer]. Its confirmations are cumulative.
//   - An inbox ("accounts_in", "creditors_in", "debtors_in") is filled by
//     [Store.Publish] and consumed by any number of competing [Subscription]s.
//     Their acknowledgements are individual.
//
// # One writer commits for all callers
//
// A commit costs an fsync, whether it has one message or a thousand. So callers do not
// commit individually: every change that callers make (received messages, messages of
// applications, confirmations, acknowledgements, bindings) is an operation in one list. A
// single goroutine takes the whole list, applies it in one transaction, and reports the
// result to all callers after the COMMIT. During the commit, the next list is collected. A
// single operation is not delayed; under load, a transaction has thousands of them.
//
//	Publish ─┐                        ┌─ confirmed(n)
//	Send ────┤   ┌──────┐  ┌────────┐ ├─ done(nil)
//	Confirm ─┼──▶│ list │─▶│ writer │─┤
//	Ack ─────┤   └──────┘  └────────┘ ├─ waiting consumers wake up
//	Bind ────┘                        └─ watchers get copies
//
// The list is bounded by number and bytes of messages: beyond the bound, callers that
// submit messages block. Operations are checked before they are added to the list, so that
// none of them can fail the transaction of the others.
//
// When a transaction fails because another process keeps the file locked, it is rolled back
// and retried, with the same operations in the same order, until it succeeds or the store is
// closed. Callers get no result before: a message is never confirmed early and never lost.
// After other failures the same holds, except that messages of applications are refused.
//
// # A full disk
//
// Storing stops before the disk is full ([Options].MinFree): messages of peers are accepted
// only as fast as applications consume them, and when even less space is left, messages of
// applications are refused with [ErrFull]. Removing needs space too, in the write-ahead log. So
// when a transaction fails for lack of space, or would fail, its operations that remove, move
// or bind are committed without the others, in small transactions that overwrite each other in the
// write-ahead log, a part of which is kept for that (walroom.go). If that fails too, a reserve file is
// deleted and they are tried again ([Options].Reserve).
// While there is little space, the log is not truncated completely: its rest is for removing, also
// if that program takes the space of the reserve too.
// SQLite does not report whether the reason of a write error is missing space, as with a quota,
// or a failing disk: the operating system's reason is determined by writing a small file
// ("-trial-*"). If the reason is not missing space, the reserve stays, and messages of
// applications are refused with [ErrUnwritable]. Removed messages leave free space in the file,
// which a service releases to the disk. When there is space again, the store continues by
// itself: after an error, the store is considered writable only when a file at least as large
// as the messages that were not stored (up to 1 MiB) could be written.
//
// # Consuming
//
// Readers have their own connections and read the state of the last commit (SQLite's
// write-ahead log). Which messages are delivered is recorded in memory only: after a
// crash, all messages that were not removed are delivered again. A confirmation is valid
// from the moment it is made, even if the removal is not durable yet: the next consumer of
// the queue starts after the confirmed messages.
//
// A dead letter is moved to a table of its own. [Store.Retry] assigns it the next sequence
// number of its queue, as if it had just been sent. A message that can not be routed becomes a
// dead letter at once, of a queue for such messages ([UnroutableQueue]).
//
// # Quotas
//
// The size of received messages is counted for each sending peer, in the transactions that
// store and remove them. [Store.AwaitQuota] blocks for a peer that has reached its quota
// ([Options].PeerQuota), and for all peers when the disk is almost full and messages of peers
// fill the space that is left to them (MinFree).
//
// # Several processes
//
// Several processes may have the file open: sequence numbers are assigned, and messages
// routed, according to the state of the file inside the transaction, and a lock makes
// access fair (fairlock.go). A store detects changes by other processes within a quarter
// of a second. But which messages are delivered is recorded in one process only, so only
// one process should consume a queue.
//
// # The file
//
// It is an ordinary SQLite database (schema.go), which an operator can inspect with the
// sqlite3 tool. While it is open, or after a crash, there are files beside it: "-wal" has
// messages and must stay with the file, "-shm" and "-turn" are created again when needed. A
// "-wal" that is missing or of another point in time is detected (pair.go), with the help of
// "-last", which identifies the last transaction. "-reserve" only occupies space, "-trial-*"
// exist briefly after an error. [Backup] copies the file while it is in use, and [Restore] keeps a file
// that it replaces in a folder "before-restore-*".
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"peerlink/broker"
	"peerlink/internal/durable"
	"peerlink/internal/wait"
)

var (
	// errInvalid is returned for a name, a binding key or a message that can not be
	// stored, regardless of the state of the store, and for a limit below 1.
	errInvalid = errors.New("embedded: invalid")
	// errNotDelivered is returned for a tag or sequence number that is not delivered to the
	// consumer or subscription: it was never delivered to it, or it was confirmed or
	// acknowledged, moved to the dead letters or requeued since.
	errNotDelivered = errors.New("embedded: message is not delivered to this consumer")
	// errNewer is returned by [Open] for a file with a higher schema version than this
	// program supports.
	errNewer = errors.New("embedded: file of a newer version")
	// errOlder is returned by [Open] for a file with a lower schema version, unless a service opens it.
	errOlder = errors.New("embedded: file of an older version")
	// errNotStore is returned by [Open] for a file that is not a message store.
	errNotStore = errors.New("embedded: not a message store")
)

// Options configure a [Store]. The zero Options are valid.
type Options struct {
	// Logger logs, among others, when the file can not be written, and when it can be
	// written again; nil means [slog.Default].
	Logger *slog.Logger
	// Owner identifies the owner of the store; it may be any text. A store with another
	// owner is not opened. "" opens any store.
	Owner string
	// Service is set by the one process that runs the node. Open then assigns a store
	// without an owner to Owner, upgrades the file of an older version, records in the file that the
	// store is open, and checks the file for damage if the last service has not closed it; and the
	// store shrinks its file.
	Service bool
	// MaxPending bounds the number of messages that are not durable yet, of peers and of
	// applications separately; 0 means 4,096. It bounds the size of a transaction too.
	MaxPending int
	// MaxPendingBytes bounds the size of those messages in bytes; 0 means 32 MiB.
	MaxPendingBytes int
	// MaxBody is the size of the largest message body accepted, in bytes; 0 means 1 MiB.
	// (SMP requires 8,192.)
	MaxBody int
	// PeerQuota bounds the size, in bytes, of the messages received from one peer and not
	// consumed yet: once it is reached, [Store.AwaitQuota] blocks until an eighth of it is
	// free again. 0 means no limit.
	PeerQuota int64
	// MinFree is how many bytes should be free on the disk and in the file together; 0 means
	// no limit. While fewer are, or while less than a quarter of MinFree is free on the disk,
	// [Store.AwaitQuota] lets all peers together fill only a sixteenth of MinFree with messages
	// that no application has consumed. While less than that quarter is free, messages of
	// applications are refused with [ErrFull] too.
	MinFree int64
	// Reserve is the size in bytes of a file beside the store that is deleted when the
	// disk is full, so that messages can still be removed; no message is stored until it
	// could be created again. 0 means no reserve.
	Reserve int64

	// Set by tests only; 0 and nil mean diskInterval and the functions with these names.
	diskCheckInterval time.Duration // between checks of the disk
	freeBytes         func(dir string) (int64, error)
	tryWriting        func(store string, size int) error
	writeReserve      func(path string, content []byte) error
}

func (o Options) withDefaults() Options {
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	if o.MaxPending <= 0 {
		o.MaxPending = 4096
	}
	if o.MaxPendingBytes <= 0 {
		o.MaxPendingBytes = 32 << 20
	}
	if o.MaxBody <= 0 {
		o.MaxBody = 1 << 20
	}
	if o.freeBytes == nil {
		o.freeBytes = freeBytes
	}
	if o.tryWriting == nil {
		o.tryWriting = tryWriting
	}
	if o.writeReserve == nil {
		o.writeReserve = writeReserve
	}
	if o.diskCheckInterval <= 0 {
		o.diskCheckInterval = diskInterval
	}
	return o
}

// Store is an open message store. It implements [broker.Broker]; all its methods are safe
// for concurrent use.
//
// Callbacks (confirmed and done functions) are called on the writer's goroutine: they must
// not block, and so must not call methods that may wait for the writer, such as [Store.Send]
// and [Store.Close].
type Store struct {
	path   string
	limits limits
	log    *slog.Logger

	life     context.Context // cancelled when the store is closed
	end      context.CancelFunc
	close    func() error
	writer   *writer
	readers  *readers
	faults   faults
	notifier *notifier
	quotas   *quotas
	disk     *disk

	mu         sync.Mutex
	peerQueues map[string]*peerQueue // by name: confirmations of its consumers
	inboxes    map[string]*inbox     // by name: deliveries to its subscriptions

	routeChanges atomic.Int64 // number of changes of bindings in progress

	counted chan struct{} // closed when keepCounted has returned

	lastSeqsAtOpen map[string]uint64 // by queue: the last sequence number when the store was opened
}

var _ broker.Broker = (*Store)(nil)

// Open opens the store in a file, and creates the file, with mode 0600, if it does not exist.
// The directory must exist. Open returns an error for a file that is not a message store, was
// written by a newer version (or by an older one, unless a service opens it), belongs to another
// owner ([ErrOwner]), is of another point in time than its write-ahead log, or is found to be
// damaged. It returns [ErrFull] if there is too little space to open it.
func Open(path string, opts Options) (*Store, error) {
	s, err := openOrMakeRoom(path, opts.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open message store %s: %w", path, err)
	}
	return s, nil
}

// openOrMakeRoom opens a store. If there is too little space to open it, openOrMakeRoom
// removes the reserve and tries again, once.
func openOrMakeRoom(path string, opts Options) (*Store, error) {
	path, err := durable.Target(path) // SQLite creates its other files beside the target, and so does this package
	if err != nil {
		return nil, err
	}
	removeTrials(path)
	s, err := open(path, opts)
	if err != nil && opts.makeRoomToOpen(path, err) {
		s, err = open(path, opts)
	}
	if err != nil {
		return nil, opts.openError(path, err)
	}
	if opts.Service {
		removeSecondNames(path)
	}
	return s, nil
}

func open(path string, opts Options) (*Store, error) {
	w, err := openWriteConn(path, opts)
	if err != nil {
		return nil, err
	}
	lastSeqs, err := w.lastSeqs()
	if err != nil {
		w.close()
		return nil, err
	}
	usage, err := w.usage()
	if err != nil {
		w.close()
		return nil, err
	}
	r, err := openReaders(path)
	if err != nil {
		w.close()
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	s := &Store{
		path:       path,
		limits:     limits{maxBody: opts.MaxBody},
		log:        opts.Logger.With("store", path),
		life:       life,
		end:        end,
		readers:    r,
		faults:     faults{reads: make(map[string]*failedRead), interval: recheckInterval},
		notifier:   newNotifier(),
		peerQueues: make(map[string]*peerQueue),
		inboxes:    make(map[string]*inbox),

		counted: make(chan struct{}),

		lastSeqsAtOpen: lastSeqs,
	}
	s.faults.log = s.log
	s.faults.check = func() error {
		return s.readers.use(life, func(r *readConn) error { return quickCheck(life, r.conn) })
	}
	s.close = sync.OnceValue(s.closeOnce)
	s.quotas = newQuotas(opts.PeerQuota, usage, s.log)
	s.disk = &disk{
		minFree: opts.MinFree, log: s.log,
		freeBytes: func() (int64, error) { return opts.freeBytes(filepath.Dir(path)) },
		walBytes:  w.walBytes,
		keptWAL:   w.keptWAL,
	}
	s.disk.warnIfSmall(opts.PeerQuota)
	s.writer = &writer{
		db: w, log: s.log, notifier: s.notifier, quotas: s.quotas, disk: s.disk,
		peerBudget:        newBudget(life, opts.MaxPending, opts.MaxPendingBytes),
		applicationBudget: newBudget(life, opts.MaxPending, opts.MaxPendingBytes),
		reserve:           newReserve(path, opts.Reserve),
		shrinks:           opts.Service,
		shrinkStep:        maxShrinkStep,
		diskCheckInterval: opts.diskCheckInterval,
		tryWriting:        func(size int) error { return opts.tryWriting(path, size) },
		wake:              wait.NewSignal(),
		done:              make(chan struct{}),
	}
	s.writer.reserve.write = opts.writeReserve
	s.writer.checkDisk()
	go s.writer.run(life)
	go func() {
		defer close(s.counted)
		if opts.Service {
			s.keepCounted()
		}
	}()
	return s, nil
}

// Close writes the pending operations and closes the file. Delivered messages that were not
// removed stay in their queues. The callers of operations that can not be written receive
// [broker.ErrClosed], and Close returns the reason; messages of applications may be refused
// with [ErrFull] or [ErrUnwritable] instead. Other blocked calls return [broker.ErrClosed].
func (s *Store) Close() error { return s.close() }

func (s *Store) closeOnce() error {
	s.end()
	s.faults.stop()
	<-s.counted
	err := s.writer.wait()
	s.readers.close()
	if s.writer.shrinks && err == nil && !s.writer.ioFailed {
		s.writer.db.recordClosed()
	}
	if s.writer.reserve.missing || isFull(s.writer.lastError()) {
		s.writer.db.isSpaceScarce = func() bool { return true } // the free space does not account for a quota
	}
	// The last connection checkpoints the write-ahead log.
	err = cmp.Or(err, s.writer.db.close())
	s.writer.reserve.createAtClose()
	if err != nil {
		return fmt.Errorf("close message store %s: %w", s.path, err)
	}
	return nil
}

// waitFor waits for a signal. It returns early with the error of ctx when ctx ends, or
// with [broker.ErrClosed] when the store, or the channel closed, is closed.
func (s *Store) waitFor(ctx context.Context, signal, closed <-chan struct{}) error {
	select {
	case <-signal:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return broker.ErrClosed
	case <-s.life.Done():
		return broker.ErrClosed
	}
}

// submitCall submits an operation of the kind maintenance to the writer. The channel receives
// the result.
func (s *Store) submitCall(do func(*tx) error) (<-chan error, error) {
	return s.startOp(callOp{do: do})
}

func (s *Store) startOp(o callOp) (<-chan error, error) {
	settled := make(chan error, 1)
	o.done = func(err error) { settled <- err }
	err := s.writer.submit(&o)
	return settled, err
}

// commit submits an operation of the kind maintenance to the writer and waits for its result.
// If ctx ends before the result is known, the operation may or may not take place.
func (s *Store) commit(ctx context.Context, do func(*tx) error) error {
	return s.commitOp(ctx, callOp{do: do})
}

func (s *Store) commitOp(ctx context.Context, o callOp) error {
	settled, err := s.startOp(o)
	if err != nil {
		return err
	}
	return await(ctx, settled)
}

func await(ctx context.Context, settled <-chan error) error {
	select {
	case err := <-settled:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// flushTime bounds the time that the Close of a consumer or subscription waits for the
// transaction with its last confirmations. In this process they are valid at once; waiting helps
// another process that opens the file next.
const flushTime = 2 * time.Second

// flush waits, up to flushTime and while the store is open, until all operations of the
// kind maintenance submitted so far are durable.
func (s *Store) flush() {
	ctx, cancel := context.WithTimeout(s.life, flushTime)
	defer cancel()
	_ = s.commit(ctx, func(*tx) error { return nil })
}
