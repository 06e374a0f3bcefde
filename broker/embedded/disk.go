package embedded

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// diskInterval is how old a look at the disk may be, unless [Options] say otherwise.
const diskInterval = time.Second

// ErrFull is reported for a message of an application that can not be stored
// because there is no room for it. Nothing of it is stored.
var ErrFull = errors.New("embedded: no room in the message store")

// ErrUnwritable is reported for a message of an application that can not be stored
// for another reason than want of room. Nothing of it is stored.
var ErrUnwritable = errors.New("embedded: the message store can not be written")

// disk knows how much room there is for messages. Below min bytes free, peers may
// only fill a window: the rest is for the node's own applications, which may have
// to answer messages before they can take them. Below a quarter of min nothing is
// taken from these. The window lies below that, where the messages that wait for
// peers can not take its room: two nodes whose disks such messages have filled go
// on taking from each other, and so empty each other's queues. What is left below
// the window is for removing.
type disk struct {
	min       int64                 // 0: no limits
	freeBytes func() (int64, error) // bytes on the disk that are free
	log       *slog.Logger

	mu     sync.Mutex
	inside int64    // bytes in the file that were free at the last look
	free   int64    // bytes on the disk that were free at the last look or check
	short  bool     // left is less than min
	closed bool     // the window too
	low    *Trouble // why peers may only fill the window, if that; nil: there is room
}

// window is how many bytes of received messages there may be while there is little
// room, and how many bytes must be free on the disk for any to be stored. They take
// twice as much until the write-ahead log is moved into the file.
func (d *disk) window() int64 { return d.min / 16 }

// floor is how many bytes must be free on the disk for messages of a kind to be stored.
func (d *disk) floor(k kind) int64 {
	if k == received {
		return d.window()
	}
	return d.min / 4
}

// warnIfSmall warns when the disk fills before a single peer's quota does: then it is
// the disk that stops that peer, and all others with it.
func (d *disk) warnIfSmall(quota int64) {
	if quota <= 0 || d.min <= 0 {
		return
	}
	if free, err := d.freeBytes(); err == nil && free-d.min < quota {
		d.log.Warn("the disk has less room than one peer may fill, and could be full before that peer is held back: lower the quota, or make room",
			"free", free, "peer_quota", quota)
	}
}

// awaitRoom waits until there is room for messages of peers.
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

// hasRoomForPeers reports whether messages are taken from peers while those taken already, and
// not taken out by applications, have this number of bytes.
func (d *disk) hasRoomForPeers(received int64) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.low == nil || !d.closed && d.free >= d.window() && received < d.window()
}

// trouble returns why peers may only fill the window, or nothing, as of the last look.
func (d *disk) trouble() *Trouble {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.low
}

// needsCheck reports whether there may be too little room for messages of peers
// since the last look.
func (d *disk) needsCheck() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short && d.low == nil
}

// isShort reports whether the disk has little room, whatever is free in the file.
func (d *disk) isShort() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.short
}

// check finds out how much is free; inside is what is free in the file. What can not be
// found out is no reason to stop: a disk that is really full is noticed by the writer.
func (d *disk) check(inside int64, r *reserve) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.min <= 0 {
		return
	}
	free, err := d.freeBytes()
	d.inside, d.free, d.short, d.closed = inside, free, err == nil && free < d.min, r.missing
	// What is free inside the file is room too, but what goes there has to go
	// into the write-ahead log first.
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

// checkRoom reports [ErrFull] if there is no room for messages of a kind with this number of
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
