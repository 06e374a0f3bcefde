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

// noFollowFile is the name of a file in a peer's directory. While it exists, the
// info-bundle that the peer publishes is not fetched. The file holds the date on which
// it was created. The reference's scripts and servers do not read it.
const noFollowFile = "NOFOLLOW"

// ReplaceNodeinfo replaces the nodeinfo of a known peer with that of a verified
// info-bundle of the peer, if the latter is newer, and reports whether it did so. It
// changes nothing else.
//
// It fails with [ErrUnknownPeer], with [ErrDeactivated], with [ErrOtherRoot] if the
// bundle's root certificate is not the pinned one, and with [infobundle.ErrInvalid] if
// the stomp.toml in the bundle is invalid.
func (d *Dir) ReplaceNodeinfo(ctx context.Context, b *infobundle.Bundle) (updated bool, err error) {
	if err := d.checkEligible(b); err != nil {
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
	switch deactivated, err := exists(d.file("peers", id, "DEACTIVATED")); {
	case err != nil:
		return false, err
	case deactivated:
		return false, fmt.Errorf("%w: %s", ErrDeactivated, id)
	}
	return d.updatePeer(dir, b, false)
}

// SetFollow sets whether the info-bundle that a peer publishes is fetched (periodically,
// and additionally when the peer can not be reached). The default is true.
func (d *Dir) SetFollow(ctx context.Context, id string, follow bool) error {
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := d.peerDir(id); err != nil {
		return err
	}
	path := d.file("peers", id, noFollowFile)
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
