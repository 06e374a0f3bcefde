package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// diskInterval is the default interval between checks of the free disk space.
const diskInterval = time.Second

// ErrFull is reported for a message of an application that can not be stored because there
// is no space for it. No part of the message is stored.
var ErrFull = errors.New("embedded: no room in the message store")

// ErrUnwritable is reported for a message of an application that can not be stored for
// another reason than missing space. No part of the message is stored.
var ErrUnwritable = errors.New("embedded: the message store can not be written")

// disk decides whether there is space for messages. While less than min bytes are free,
// received messages may fill only a window; the rest is for the node's own applications,
// which may have to send messages before they can take received ones. While less than a
// quarter of min is free, messages of applications are refused. The window is below that
// quarter, so that messages queued for peers can not use it up: two nodes whose disks are
// full of messages for each other continue to receive, and so empty each other's queues.
// The space below the window is for removing messages.
type disk struct {
	min       int64                 // 0: no limits
	freeBytes func() (int64, error) // bytes on the disk that are free
	log       *slog.Logger

	mu     sync.Mutex
	inside int64    // bytes in the file that were free at the last check
	free   int64    // bytes on the disk that were free at the last check
	short  bool     // left is less than min
	closed bool     // no messages are stored in the window either
	low    *Trouble // why received messages may fill only the window; nil: there is enough space
}

// window is how many bytes of received messages may be stored while there is little space,
// and how many bytes must be free on the disk for that. The messages take twice as much
// until SQLite has checkpointed the write-ahead log.
func (d *disk) window() int64 { return d.min / 16 }

// floor is how many bytes must be free on the disk for messages of a kind to be stored.
func (d *disk) floor(k kind) int64 {
	if k == received {
		return d.window()
	}
	return d.min / 4
}

// warnIfSmall logs a warning if the free space is smaller than the quota of a single peer:
// such a peer could fill the disk, which would stop all other peers too.
func (d *disk) warnIfSmall(quota int64) {
	if quota <= 0 || d.min <= 0 {
		return
	}
	if free, err := d.freeBytes(); err == nil && free-d.min < quota {
		d.log.Warn("the disk has less room than one peer may fill, and could be full before that peer is held back: lower the quota, or make room",
			"free", free, "peer_quota", quota)
	}
}

// awaitRoom waits until there is space for received messages.
func (d *disk) awaitRoom(ctx context.Context, s *Store) error {
	for !d.hasRoomForPeers(s.received()) {
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

// hasRoomForPeers reports whether messages are accepted from peers; received is the size
// in bytes of the received messages that no application has taken yet.
func (d *disk) hasRoomForPeers(received int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.low == nil || !d.closed && d.free >= d.window() && received < d.window()
}

// trouble returns why received messages may fill only the window, as of the last check, or
// nil.
func (d *disk) trouble() *Trouble {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.low
}

// needsCheck reports whether the space may have become too small for received messages
// since the last check.
func (d *disk) needsCheck() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short && d.low == nil
}

// isShort reports whether the disk has little space, regardless of free space in the file.
func (d *disk) isShort() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short
}

// check measures the free space; inside is the free space in the file, in bytes. An error
// of measuring is not treated as a full disk: the writer detects a disk that is full.
func (d *disk) check(inside int64, r *reserve) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.min <= 0 {
		return
	}
	free, err := d.freeBytes()
	d.inside, d.free, d.short, d.closed = inside, free, err == nil && free < d.min, r.missing
	// Free space in the file counts too, but messages are written to the write-ahead log
	// first.
	switch full := r.missing || err == nil && (free+inside < d.min || free < d.floor(sent)); {
	case full && r.err != nil:
		if d.low == nil {
			d.log.Warn("the reserve of the message store can not be made, nothing is stored", "err", r.err)
			d.low = &Trouble{Since: time.Now()}
		}
		d.low = &Trouble{Since: d.low.Since, Err: r.err}
	case full && d.low == nil:
		d.low = &Trouble{Since: time.Now(), Err: fmt.Errorf(
			"%d bytes are free on the disk and %d in the file, and %d are expected: no more is taken from peers than applications take out; make room, or have the applications take their messages",
			free, inside, d.min)}
		d.log.Warn("the disk is almost full, no more is taken from peers than applications take out", "free", free, "free_in_file", inside, "expected", d.min)
	case !full && d.low != nil:
		d.low = nil
		d.log.Info("the disk has room again, messages of peers are taken", "free", free)
	}
}

// checkRoom reports [ErrFull] if there is no space for messages of this kind and size in
// bytes: once in the write-ahead log, and once in the file.
func (d *disk) checkRoom(k kind, bytes int64) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.min <= 0 {
		return nil
	}
	free, err := d.freeBytes()
	d.free, d.short = free, err == nil && free < d.min
	if need := d.floor(k) + bytes + max(bytes-d.inside, 0); err == nil && free < need {
		return fmt.Errorf("%w: %d bytes are free on the disk, and %d are needed", ErrFull, free, need)
	}
	return nil
}
