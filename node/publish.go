package node

import (
	"errors"
	"fmt"
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

// publishBundle replaces the published info-bundle, unless that is newer. The
// caller holds the directory's lock.
func (d *Dir) publishBundle(data []byte) error {
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return err
	}
	there, err := durable.Read(d.PublishedBundle(), infobundle.MaxSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w; remove it, if it is not needed", err)
	}
	// What is no bundle of this node's is in the way.
	if old, err := infobundle.Read(there, time.Now()); err == nil && old.Root.Equal(d.root) && old.UpdatedAt() >= b.UpdatedAt() {
		return nil
	}
	return durable.Replace(d.PublishedBundle(), data, 0o644)
}
