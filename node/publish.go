package node

import (
	"errors"
	"io/fs"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
)

// publishedBundle holds the node's newest info-bundle, for those who fetch it. It
// is no file of the reference's, whose scripts do not mind it.
const publishedBundle = "db/info-bundle.zip"

// PublishedBundle is the file with the newest info-bundle that was made here,
// whatever it was called by those who made it. The reference's scripts do not
// write it.
func (d *Dir) PublishedBundle() string { return d.file(filepath.FromSlash(publishedBundle)) }

// PublishBundle puts an info-bundle that was signed elsewhere where
// [Dir.PublishedBundle] says, unless a newer one is there: it may have taken a
// while to come back.
func (l *Locked) PublishBundle(data []byte) error {
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return err
	}
	there, err := durable.Read(l.d.PublishedBundle(), infobundle.MaxSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// Anything else there is no bundle of this node's, and only in the way.
	if old, err := infobundle.Read(there, time.Now()); err == nil && old.Root.Equal(l.d.root) && old.UpdatedAt() >= b.UpdatedAt() {
		return nil
	}
	return l.d.publishBundle(data)
}

func (d *Dir) publishBundle(data []byte) error {
	return durable.Replace(d.PublishedBundle(), data, 0o644)
}
