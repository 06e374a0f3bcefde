package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"
)

// diskInterval is the default interval between checks of the free disk space.
const diskInterval = time.Second

// ErrFull is the error for a message of an application that can not be stored because there
// is no space for it. No part of the message is stored. [Open] returns ErrFull if there is no
// space to open the store.
var ErrFull = errors.New("embedded: no room in the message store")

// ErrUnwritable is the error for a message of an application that can not be stored for
// another reason than missing space. No part of the message is stored.
var ErrUnwritable = errors.New("embedded: the message store can not be written")

// disk decides whether there is space for messages. While less than minFree bytes are free,
// messages of peers that no application has consumed may fill only a window; the other space
// is for the node's own applications, which may have to send messages before they can consume
// received ones. While less than a quarter of minFree is free, messages of applications are
// refused. The window is smaller than that quarter, so that messages queued for peers
// cannot use it up: two nodes whose disks are full of messages for each other continue to
// receive, and so empty each other's queues. While less than the window is free, no message
// is stored: that space is for removing messages.
type disk struct {
	minFree   int64                 // 0: no limits
	freeBytes func() (int64, error) // bytes on the disk that are free
	walBytes  func() int64          // size of the write-ahead log
	keptWAL   int64                 // size in bytes to which the log is truncated
	log       *slog.Logger

	mu         sync.Mutex
	freeInFile int64     // bytes in the file that were free at the last check
	freeOnDisk int64     // bytes on the disk that were free when last measured
	short      bool      // freeOnDisk is less than minFree
	cause      fullCause // the cause of almostFull
	almostFull *Problem  // why messages of peers may fill only the window, or, without the reserve, nothing; nil: they may use all space
}

// window is how many bytes messages of peers may have while the disk is almost full, and
// how many bytes must be free on the disk for storing them. They take twice as much until
// SQLite has checkpointed the write-ahead log.
func (d *disk) window() int64 { return windowOf(d.minFree) }

func windowOf(minFree int64) int64 { return minFree / 16 }

// floor is how many bytes must remain free on the disk when messages of a kind are stored.
func (d *disk) floor(k kind) int64 {
	if k == fromPeer {
		return d.window()
	}
	return d.minFree / 4
}

// walLimit is the size in bytes from which the write-ahead log is truncated. While the disk
// has little space, neither the log nor its checkpoint, which needs as much space in the file,
// may use up the space of the window: messages of peers in the window would fill the disk,
// and then the reserve would be removed.
func (d *disk) walLimit() int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case d.minFree <= 0:
		return maxWAL
	case d.short:
		return d.window() / 2
	}
	return min(maxWAL, d.freeOnDisk/4)
}

// walToCopy returns how many bytes of the write-ahead log the next checkpoint copies to the file, beyond
// those that use the part of the log that is kept: that part needs space in the file, but took none on the
// disk. The caller holds d.mu.
func (d *disk) walToCopy() int64 { return max(d.walBytes()-d.keptWAL, 0) }

// measure measures the free space on the disk, sets d.freeOnDisk and d.short, and returns the
// number of bytes. An error is not treated as a full disk: if the disk is full, writing fails.
// The caller holds d.mu.
func (d *disk) measure() int64 {
	free, err := d.freeBytes()
	if err != nil {
		free = math.MaxInt64 / 2 // sums with it do not overflow
	}
	d.freeOnDisk, d.short = free, free < d.minFree
	return free
}

// spaceForReserve is how many bytes must be free to create a reserve of size bytes, so that
// messages of peers can fill the window afterwards, which needs twice the size of the window.
// More is not required, since messages for unreachable peers may have filled the disk down to
// the floor: such a peer may be waiting for this node to accept its messages first, and none is
// accepted without the reserve.
func (d *disk) spaceForReserve(size int64) int64 { return size + 2*d.window() }

// hasRoomForReserve reports whether there is space to create a reserve of size bytes.
func (d *disk) hasRoomForReserve(size int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.measure() >= d.spaceForReserve(size)
}

// warnIfSmall logs a warning if the free space beyond minFree is smaller than the quota of a
// single peer: such a peer could fill the disk, which would stop all other peers too.
func (d *disk) warnIfSmall(quota int64) {
	if quota <= 0 || d.minFree <= 0 {
		return
	}
	if free, err := d.freeBytes(); err == nil && free-d.minFree < quota {
		d.log.Warn("the disk has less space for messages of peers than the quota of one peer, and could be full before that peer reaches its quota: lower the quota, or free space",
			"free", free, "kept_free", d.minFree, "peer_quota", quota)
	}
}

// awaitRoom waits until there is space for received messages.
func (d *disk) awaitRoom(ctx context.Context, s *Store) error {
	for !d.hasRoomForPeers(s.unconsumedFromPeers()) {
		again := make(chan struct{})
		timer := time.AfterFunc(diskInterval, func() { close(again) })
		err := s.waitFor(ctx, again, nil)
		timer.Stop()
		if err != nil {
			return err
		}
	}
	return nil
}

// hasRoomForPeers reports whether messages are accepted from peers; unconsumed is the size
// in bytes of the messages of peers that no application has consumed yet.
func (d *disk) hasRoomForPeers(unconsumed int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.almostFull == nil || d.cause == littleSpace && d.freeOnDisk >= d.window() && unconsumed < d.window()
}

// problem returns d.almostFull, as of the last check.
func (d *disk) problem() *Problem {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.almostFull
}

// needsCheck reports whether the space may have become too small for messages of peers
// since the last check.
func (d *disk) needsCheck() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short && d.almostFull == nil
}

// isShort reports whether the disk has little space, regardless of free space in the file.
func (d *disk) isShort() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short
}

// isTight reports whether the disk has hardly more space than messages of peers require. Then
// every free page in the file should be released to the disk.
func (d *disk) isTight() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short && d.freeOnDisk < 2*d.window()
}

// check measures the free space, and sets or clears d.almostFull; freeInFile is how many
// bytes of the file are free.
func (d *disk) check(freeInFile int64, r *reserve) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.minFree <= 0 {
		return
	}
	free := d.measure()
	d.freeInFile = freeInFile
	// Free space in the file counts too, but messages are written to the write-ahead log
	// first.
	var cause fullCause
	switch {
	case r.missing && r.err != nil:
		cause = reserveFailed
	case r.missing:
		cause = reserveMissing
	case free+freeInFile < d.minFree || free < d.floor(fromApplication):
		cause = littleSpace
	}
	before := d.cause
	d.cause = cause
	switch {
	case cause == notFull && before != notFull:
		d.almostFull = nil
		d.log.Info("the disk has space again, messages of peers are accepted", "free", free)
	case cause != notFull && (cause != before || cause == reserveFailed):
		t := &Problem{Since: time.Now(), Err: d.explainFull(free, r)}
		if before == notFull {
			d.logFull(free, r)
		} else {
			t.Since = d.almostFull.Since
		}
		d.almostFull = t
	}
}

// fullCause is the cause of almostFull.
type fullCause int

const (
	notFull        fullCause = iota
	littleSpace              // less space is free than there must be
	reserveMissing           // there is no space to create the reserve
	reserveFailed            // creating the reserve has failed
)

// explainFull returns the error for d.cause. The caller holds d.mu.
func (d *disk) explainFull(free int64, r *reserve) error {
	switch d.cause {
	case reserveFailed:
		return r.err
	case reserveMissing:
		return fmt.Errorf("%d bytes are free on the disk, and %d must be free to make the reserve of the message store again: no message is stored before that; free disk space, or let the applications consume their messages",
			free, d.spaceForReserve(r.size))
	default:
		return fmt.Errorf("%d bytes are free on the disk and %d in the file, and at least %d must be free in total, %d of them on the disk: messages of peers are accepted only as fast as applications consume them; free disk space, or let the applications consume their messages",
			free, d.freeInFile, d.minFree, d.floor(fromApplication))
	}
}

// logFull logs d.cause. The caller holds d.mu.
func (d *disk) logFull(free int64, r *reserve) {
	switch d.cause {
	case reserveFailed:
		d.log.Warn("the reserve of the message store can not be made, nothing is stored", "err", r.err)
	case reserveMissing:
		d.log.Warn("the disk is full, nothing is stored until the reserve of the message store can be made again", "free", free, "expected", d.spaceForReserve(r.size))
	default:
		d.log.Warn("the disk is almost full, messages of peers are accepted only as fast as applications consume them", "free", free, "free_in_file", d.freeInFile, "expected", d.minFree)
	}
}

// roomForPeers returns the largest size in bytes of messages of peers for which checkRoom returns
// nil; freeInFile is how many bytes of the file are free.
func (d *disk) roomForPeers(freeInFile int64) int64 {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.freeInFile = freeInFile
	onDisk := d.measure() - d.floor(fromPeer)
	inFile := freeInFile - d.walToCopy()
	if onDisk <= inFile {
		return max(onDisk, 0)
	}
	return max((onDisk+inFile)/2, 0)
}

// checkRoom returns [ErrFull] if there is no space for messages of this kind and size in
// bytes. They need twice their size: in the write-ahead log and in the file, to which the next
// checkpoint also copies what is in the log already.
func (d *disk) checkRoom(k kind, bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.minFree <= 0 {
		return nil
	}
	free := d.measure()
	if need := d.floor(k) + bytes + max(bytes+d.walToCopy()-d.freeInFile, 0); free < need {
		return fmt.Errorf("%w: %d bytes are free on the disk, and %d are needed", ErrFull, free, need)
	}
	return nil
}
