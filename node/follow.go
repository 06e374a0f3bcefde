package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
)

// noFollow marks, in a peer's directory, that the info-bundle which the peer
// publishes is not to be fetched. It holds the date from which that is so. The
// reference's scripts and servers do not look at it.
const noFollow = "NOFOLLOW"

// UpdatePeer takes over the nodeinfo in a checked info-bundle of a known peer, if
// it is newer than what is known. It does what [Dir.SignPeer] does with the
// bundle of a known peer, and touches nothing else.
//
// It fails with [ErrUnknownPeer], with [ErrOtherRoot] if the bundle is not signed
// with the root key that is pinned, with [ErrDeactivated], and with
// [infobundle.ErrInvalid] if the manifest in the bundle could not be used.
func (d *Dir) UpdatePeer(ctx context.Context, b *infobundle.Bundle) (updated bool, err error) {
	if err := d.checkNewPeer(b); err != nil {
		return false, err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	id := b.Identity.ID
	dir := d.file("peers", id)
	if !isDir(dir) {
		return false, fmt.Errorf("%w %s: its info-bundle has to be signed first", ErrUnknownPeer, id)
	}
	switch gone, err := exists(d.file("peers", id, "DEACTIVATED")); {
	case err != nil:
		return false, err
	case gone:
		return false, fmt.Errorf("%w: %s", ErrDeactivated, id)
	}
	return d.updatePeer(dir, b, false)
}

// SetFollow says whether the info-bundle that a peer publishes is to be fetched
// when the peer can not be reached, and now and then. It is, unless this was
// called with false.
func (d *Dir) SetFollow(ctx context.Context, id string, follow bool) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := d.Peer(id); err != nil {
		return err
	}
	path := d.file("peers", id, noFollow)
	if follow {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return durable.SyncDir(d.file("peers", id))
	}
	err = durable.Create(path, []byte(time.Now().Format(time.DateOnly)+"\n"), 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}
