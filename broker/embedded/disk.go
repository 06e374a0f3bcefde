package embedded

import (
	"context"
	"log/slog"
	"sync"
	"time"
)

// diskInterval is how old a look at the disk may be.
const diskInterval = time.Second

// disk knows whether the disk has room for messages of peers. What is kept free
// is for the node's own applications.
type disk struct {
	min    int64                 // bytes that must be free; 0: none
	free   func() (int64, error) // bytes on the disk that are free
	inside func() (int64, error) // bytes in the file that are free to be used again
	log    *slog.Logger

	mu     sync.Mutex
	looked time.Time
	full   bool
}

// compare tells when the disk fills before a single peer's quota does: then it is
// the disk that stops that peer, and all others with it.
func (d *disk) compare(quota int64) {
	if quota <= 0 || d.min <= 0 {
		return
	}
	if free, err := d.free(); err == nil && free-d.min < quota {
		d.log.Warn("the disk has less room than one peer may fill, and could be full before that peer is held back: lower the quota, or make room",
			"free", free, "peer_quota", quota)
	}
}

// await waits until there is room.
func (d *disk) await(ctx context.Context, s *Store) error {
	if d.min <= 0 {
		return nil
	}
	for d.isFull() {
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

func (d *disk) isFull() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	if now := time.Now(); now.Sub(d.looked) >= diskInterval {
		d.looked = now
		d.look()
	}
	return d.full
}

// look finds out how much is free. What can not be found out is no reason to
// stop: a disk that is really full is noticed by the writer.
func (d *disk) look() {
	free, err := d.free()
	// What is free inside the file needs room in the write-ahead log first.
	if err == nil && free < d.min && free >= d.min/4*3 {
		var inside int64
		inside, err = d.inside()
		free += inside
	}
	switch full := err == nil && free < d.min; {
	case full && !d.full:
		d.log.Warn("the disk is almost full, nothing is taken from peers", "free", free, "expected", d.min)
		d.full = true
	case !full && d.full:
		d.log.Info("the disk has room again, messages of peers are taken", "free", free)
		d.full = false
	}
}

// freeInside returns how many bytes of the file are not in use: it never gets
// smaller.
func (s *Store) freeInside() (bytes int64, err error) {
	err = s.readers.use(s.life, func(r *readConn) error {
		pages, err := r.freePages.number()
		bytes = pages * pageSize
		return err
	})
	return bytes, err
}
