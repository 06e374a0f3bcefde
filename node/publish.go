package node

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"reflect"
	"slices"
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

// ErrUnpublished means that the node's stomp.toml says something else than its
// newest info-bundle, from which peers learn of it.
var ErrUnpublished = errors.New("the newest info-bundle says something else")

// CheckStompTOML looks at the node's own stomp.toml as its peers will. It reports what
// they could not read, or [ErrUnpublished]. Where no info-bundle was made here that
// could be compared ([Dir.PublishedBundle]), nothing is wrong with that.
func (d *Dir) CheckStompTOML() error {
	data, err := readText(d.ownManifest())
	if err != nil {
		return err
	}
	stomp, err := ParseStompTOML(data, d.identity.ID)
	if err != nil {
		return err
	}
	if stomp.BundleURLsErr != nil {
		return stomp.BundleURLsErr
	}
	bundle, err := durable.Read(d.PublishedBundle(), infobundle.MaxSize)
	if err != nil {
		return nil
	}
	if b, err := infobundle.Read(bundle, time.Now()); err == nil && !stomp.IsIn(b) {
		return fmt.Errorf("%s: %w", infobundle.StompTOML, ErrUnpublished)
	}
	return nil
}

// OwnHosts are the names and addresses of the node's servers, as its own stomp.toml
// has them; none if that can not be read.
func (d *Dir) OwnHosts() (hosts []string) {
	data, err := readText(d.ownManifest())
	if err != nil {
		return nil
	}
	stomp, err := ParseStompTOML(data, d.identity.ID)
	if err != nil {
		return nil
	}
	for _, server := range stomp.Servers {
		if host, _, err := net.SplitHostPort(server); err == nil && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// IsIn reports whether an info-bundle says the same as the manifest.
func (c *StompConfig) IsIn(b *infobundle.Bundle) bool {
	said, err := ParseStompTOML(b.File(infobundle.StompTOML), b.Identity.ID)
	return err == nil && reflect.DeepEqual(said, c)
}

// StompTOMLStamp is a fingerprint of what [Dir.CheckStompTOML] looks at. While it stays
// equal, so does the result.
func (d *Dir) StompTOMLStamp() [2]FileStamp {
	return [2]FileStamp{StampFile(d.ownManifest()), StampFile(d.PublishedBundle())}
}

func (d *Dir) ownManifest() string { return d.file("nodeinfo", infobundle.StompTOML) }

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
