// Package embedded is the message store inside the process: a [broker.Broker]
// on one SQLite file, for nodes that fit on one machine. It also serves the
// node's own applications, which have no other broker to talk to.
//
// # Queues
//
// A queue is a name, a sequence number, and the messages that have one. A
// message gets the next number of its queue when it is stored, in the
// transaction that stores it; numbers are never used twice and have no holes.
// There are two kinds of use, and a queue has one of them at a time:
//
//   - The queue of a peer ("peer.<ID>.0") is fed by [Store.Send], which routes
//     through the bindings made by [Store.Bind], and emptied in order by one
//     [broker.Consumer]. Its confirmations are cumulative.
//   - An inbox ("accounts_in", "creditors_in", "debtors_in") is fed by
//     [Store.Publish] and emptied by any number of competing [Subscription]s.
//     Their acknowledgements are individual.
//
// # One writer commits for everybody
//
// A commit costs an fsync, whether it carries one message or a thousand. So
// nobody commits alone: everything that wants to change the file (received
// messages, messages of applications, confirmations, acknowledgements,
// declarations) becomes an operation in one list. A single goroutine takes
// the whole list, applies it in one transaction, and tells all callers after the
// COMMIT. While it waits for the disk the next list gathers. A lone operation
// waits for nobody; a flood is written a thousand at a time.
//
//	Publish ─┐                        ┌─ confirmed(n)
//	Send ────┤   ┌──────┐  ┌────────┐ ├─ done(nil)
//	Confirm ─┼──▶│ list │─▶│ writer │─┤
//	Ack ─────┤   └──────┘  └────────┘ ├─ waiting consumers wake up
//	Declare ─┘                        └─ watchers get copies
//
// The list is bounded by number and bytes of messages: beyond that, a caller that
// wants to put one in waits. Operations are checked before they enter the
// list, so that none of them can spoil the transaction of the others.
//
// When a transaction fails (another process keeps the file locked) it is rolled
// back and tried again, the same operations in the same order, until it
// succeeds or the store is closed. No caller is answered before: a message is
// never confirmed early and never lost.
//
// # A full disk
//
// Storing stops before the disk is full ([Options].MinFree): messages of peers
// wait, those of applications are refused with [ErrFull] when even less is left.
// Removing needs room too, in the write-ahead log. So when a transaction fails
// for want of room, or would, what removes, moves or binds is committed without
// the rest; and when another program has taken all the room, a file that was made
// for that purpose is given up ([Options].Reserve). SQLite does not say whether an
// error of writing is one of room, as with a quota, or of a disk that fails: the
// operating system's reason is found by writing a small file ("-trial"). Where room
// is not the reason, the reserve stays, and messages are refused with [ErrUnwritable]. What was removed makes room
// inside the file, which a service gives back to the disk. Having room again is
// all the store needs to go on.
//
// # Taking out
//
// Readers have their own connections and see what was committed last (SQLite's
// write-ahead log). What is given out is remembered in memory only: after a
// crash everything that was not removed is given out again. A confirmation
// holds from the moment it is made, even while its removal is on its way to
// disk: the next consumer of the queue starts behind it.
//
// A message that can not be sent moves to a table of its own. [Store.Retry]
// gives it the next number of its queue, as if it had just been sent.
//
// # Quotas
//
// What received messages take is counted for each peer that has sent them, in
// the transactions that store and remove them. A peer that has reached its quota
// waits in [Store.AwaitQuota], and so does every peer when the disk is almost full
// ([Options].PeerQuota, MinFree).
//
// # Several processes
//
// Any process may open the file, while others have it open: sequence numbers
// are taken, and messages routed, from what the file says inside the
// transaction, and a busy process lets the others have their turn
// (fairLock.go). A store notices what others have written within a quarter of
// a second. But what is given out is known to one process only, so only one of
// them should take messages out of a queue.
//
// # The file
//
// It is an ordinary SQLite database (schema.go), which an operator can look
// into with the sqlite3 tool. While it is open, or after a crash, there are
// files beside it: "-wal" has messages and belongs to it, "-shm" and "-turn"
// come again by themselves. A "-wal" that is missing or of another moment is noticed
// (pair.go).
// "-reserve" only takes room, "-trial" is there for a moment after an error.
package embedded

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/durable"
	"peerlink/internal/wait"
)

var (
	// ErrInvalid is reported for a name, a binding key or a message that can
	// not be stored, whatever the state of the store.
	ErrInvalid = errors.New("embedded: invalid")
	// ErrNoQueue is reported for a queue that was never declared.
	ErrNoQueue = broker.ErrNoQueue
	// ErrInUse is reported when a queue has another consumer already.
	ErrInUse = broker.ErrInUse
	// ErrNotGivenOut is reported for a tag or sequence number that its consumer
	// or subscription does not hold: it was never given out, or it was
	// confirmed, set aside or given back since.
	ErrNotGivenOut = errors.New("embedded: message is not given out")
	// ErrNewer is reported by [Open] for a file that a newer version has written.
	ErrNewer = errors.New("embedded: file of a newer version")
	// ErrNotStore is reported by [Open] for a file that is something else.
	ErrNotStore = errors.New("embedded: not a message store")
)

// Options adjust a [Store]. The zero Options are good.
type Options struct {
	// Logger gets an entry when the file can not be written, and when it can be
	// again; nil means [slog.Default].
	Logger *slog.Logger
	// Owner says who the owner of the store is, in any words: a store that
	// belongs to another one is not opened. "" opens any.
	Owner string
	// Service says that the store is opened by the one process that serves it:
	// a store without an owner becomes the Owner's.
	Service bool
	// MaxPending is how many messages may be on their way to disk, of peers and
	// of applications each; 0 means 4,096. It bounds the size of a transaction too.
	MaxPending int
	// MaxPendingBytes is how many bytes those messages may have; 0 means 32 MiB.
	MaxPendingBytes int
	// MaxBody is the largest message body taken, in bytes; 0 means 1 MiB. (SMP
	// asks for 8,192.)
	MaxBody int
	// PeerQuota is how many bytes the received messages of one peer may take
	// before [Store.AwaitQuota] makes it wait; 0 means no limit.
	PeerQuota int64
	// MinFree is how many bytes the disk must have left for Admit to let
	// anybody in; 0 means no limit. With less than a quarter of it left, messages
	// of applications are refused with [ErrFull], too.
	MinFree int64
	// look is how old a look at the disk may be; 0 means diskInterval.
	look time.Duration
	// freeBytes returns how much room the disk of a folder has; nil means the function
	// of that name.
	freeBytes func(dir string) (int64, error)
	// Reserve is the size of a file beside the store that is given up when the
	// disk is full, so that messages can still be removed; 0 makes none.
	Reserve int64
	// tryWriting writes beside the store, and writeReserve the reserve; nil means the
	// functions of that name.
	tryWriting   func(store string, size int) error
	writeReserve func(path string, content []byte) error
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
	if o.look <= 0 {
		o.look = diskInterval
	}
	return o
}

// Store is an open message store. It implements [broker.Broker]; all its
// methods are safe for concurrent use.
//
// Callbacks (confirmed and done functions) run on the goroutine that writes:
// they must return soon, and must not call [Store.Close].
type Store struct {
	path   string
	limits limits
	log    *slog.Logger

	life     context.Context // ends when the store is closed
	end      context.CancelFunc
	close    func() error
	writer   *writer
	readers  *readers
	faults   faults
	notifier *notifier
	quotas   *quotas
	disk     *disk

	mu         sync.Mutex
	peerQueues map[string]*peerQueue // by queue: what consumers have confirmed
	inboxes    map[string]*inbox     // by queue: what subscriptions hold

	old map[string]uint64 // by queue: the last sequence number when the store was opened
}

var _ broker.Broker = (*Store)(nil)

// Open opens the store in a file, and makes it, readable for the owner only,
// if it is not there. The directory must exist. It reports [ErrNewer],
// [ErrNotStore], [ErrOwner], [ErrMixed] and [ErrDamaged] for files it had better
// not touch.
func Open(path string, opts Options) (*Store, error) {
	s, err := open(path, opts.withDefaults())
	if err != nil {
		return nil, fmt.Errorf("open message store %s: %w", path, noRoomToOpen(path, explain(err)))
	}
	return s, nil
}

func open(path string, opts Options) (*Store, error) {
	path, err := durable.Target(path) // SQLite keeps its other files there, and so do we
	if err != nil {
		return nil, err
	}
	w, err := openWriteConn(path, opts)
	if err != nil {
		return nil, err
	}
	old, err := w.lastSeqs()
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
		faults:     faults{readings: make(map[string]*Trouble)},
		notifier:   newNotifier(),
		peerQueues: make(map[string]*peerQueue),
		inboxes:    make(map[string]*inbox),
		old:        old,
	}
	s.faults.log = s.log
	s.close = sync.OnceValue(s.closeOnce)
	s.quotas = newQuotas(opts.PeerQuota, usage, s.log)
	s.disk = &disk{
		min: opts.MinFree, log: s.log,
		freeBytes: func() (int64, error) { return opts.freeBytes(filepath.Dir(path)) },
	}
	s.disk.warnIfSmall(opts.PeerQuota)
	s.writer = &writer{
		db: w, log: s.log, notifier: s.notifier, quotas: s.quotas, disk: s.disk,
		received:          newBudget(life, opts.MaxPending, opts.MaxPendingBytes),
		sent:              newBudget(life, opts.MaxPending, opts.MaxPendingBytes),
		reserve:           newReserve(path, opts.Reserve),
		shrinks:           opts.Service,
		diskCheckInterval: opts.look,
		tryWriting:        func() error { return opts.tryWriting(path, trialSize) },
		wake:              wait.NewSignal(),
		done:              make(chan struct{}),
	}
	s.writer.reserve.write = opts.writeReserve
	s.writer.checkDisk()
	go s.writer.run(life)
	return s, nil
}

// Close writes what is waiting to be written, gives everything given out back
// to its queue, and releases the file. If the last transaction can not be
// committed, the callers that wait for it get [broker.ErrClosed], and Close
// returns the reason. A caller that is blocked in a call of this store gets
// [broker.ErrClosed].
func (s *Store) Close() error { return s.close() }

func (s *Store) closeOnce() error {
	s.end()
	err := s.writer.wait()
	s.readers.close()
	if s.writer.shrinks && err == nil {
		s.writer.db.noteClosed()
	}
	// The last connection moves the write-ahead log into the file.
	err = cmp.Or(err, s.writer.db.close())
	s.writer.reserve.leave()
	if err != nil {
		return fmt.Errorf("close message store %s: %w", s.path, err)
	}
	return nil
}

// waitFor waits until the bell has rung. It returns early with the reason
// when ctx ends, or with [broker.ErrClosed] when the store or closed does.
func (s *Store) waitFor(ctx context.Context, b wait.Signal, closed <-chan struct{}) error {
	select {
	case <-b:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-closed:
		return broker.ErrClosed
	case <-s.life.Done():
		return broker.ErrClosed
	}
}

// start hands an operation to the writer. The channel gets the result.
func (s *Store) start(do func(*tx) error) (<-chan error, error) { return s.startOp(callOp{do: do}) }

func (s *Store) startOp(o callOp) (<-chan error, error) {
	settled := make(chan error, 1)
	o.done = func(err error) { settled <- err }
	err := s.writer.submit(&o)
	return settled, err
}

// commit hands an operation to the writer and waits until it is settled. When
// ctx ends before, the operation may or may not take place.
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

// flushTime is how long the Close of a consumer or subscription waits for the
// transaction with its last confirmations. They hold without it; it is a
// for programs that open the file next.
const flushTime = 2 * time.Second

func (s *Store) flush() {
	ctx, cancel := context.WithTimeout(s.life, flushTime)
	defer cancel()
	_ = s.commit(ctx, func(*tx) error { return nil })
}
