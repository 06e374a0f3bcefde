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

// publishedBundle is the name of the file with the node's newest info-bundle, which
// peers fetch. The reference scripts do not use this file.
const publishedBundle = "db/info-bundle.zip"

// PublishedBundle returns the path of a copy of the newest info-bundle that peerlink
// has made in this directory. The reference scripts do not write this file.
func (d *Dir) PublishedBundle() string { return d.file(filepath.FromSlash(publishedBundle)) }

// ErrUnpublished means that the node's stomp.toml differs from the stomp.toml in its newest
// info-bundle, so that peers do not have the changes.
var ErrUnpublished = errors.New("the newest info-bundle says something else")

// CheckStompTOML checks the node's own stomp.toml. It fails if the file is invalid, even
// if only a URL under [BundleURLsKey] is, and with [ErrUnpublished] if the newest
// info-bundle ([Dir.PublishedBundle]) has a different stomp.toml. If there is no readable
// info-bundle, nothing is compared.
func (d *Dir) CheckStompTOML() error {
	stomp, err := d.OwnStomp()
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

// OwnStomp returns the content of the node's own stomp.toml.
func (d *Dir) OwnStomp() (*StompConfig, error) {
	data, err := readText(d.stompTOMLFile())
	if err != nil {
		return nil, err
	}
	return ParseStompTOML(data, d.identity.ID)
}

// OwnServers returns the addresses of the node's servers from its own stomp.toml, or nil if this file
// can not be read or is invalid.
func (d *Dir) OwnServers() []string {
	stomp, err := d.OwnStomp()
	if err != nil {
		return nil
	}
	return stomp.Servers
}

// OwnBundleURLs returns the URLs from the node's own stomp.toml at which it publishes its info-bundle,
// or nil if there are none, or if this file can not be read or is invalid.
func (d *Dir) OwnBundleURLs() []string {
	stomp, err := d.OwnStomp()
	if err != nil {
		return nil
	}
	return stomp.BundleURLs
}

// OwnHosts returns the host names and addresses of the node's servers ([Dir.OwnServers]).
func (d *Dir) OwnHosts() (hosts []string) {
	for _, server := range d.OwnServers() {
		if host, _, err := net.SplitHostPort(server); err == nil && !slices.Contains(hosts, host) {
			hosts = append(hosts, host)
		}
	}
	return hosts
}

// IsIn reports whether the stomp.toml in this node's own info-bundle is equivalent to c, which
// must have been parsed with this node's ID.
func (c *StompConfig) IsIn(b *infobundle.Bundle) bool {
	published, err := ParseStompTOML(b.File(infobundle.StompTOML), b.Identity.ID)
	return err == nil && reflect.DeepEqual(published, c)
}

// StompTOMLStamp returns the sizes and times of the files that [Dir.CheckStompTOML] reads. As
// long as they are the same, the files are considered unchanged.
func (d *Dir) StompTOMLStamp() [2]FileStamp {
	return [2]FileStamp{StampFile(d.stompTOMLFile()), StampFile(d.PublishedBundle())}
}

func (d *Dir) stompTOMLFile() string { return d.file("nodeinfo", infobundle.StompTOML) }

// PublishBundle stores an info-bundle that was signed elsewhere as the published
// bundle ([Dir.PublishedBundle]). If the file has a bundle with the same or a later
// date, which may have been made while the signature was pending, PublishBundle does
// nothing.
func (l *Locked) PublishBundle(data []byte) error {
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return err
	}
	oldData, err := durable.Read(l.d.PublishedBundle(), infobundle.MaxSize)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// A file that is not a valid bundle of this node is replaced.
	if old, err := infobundle.Read(oldData, time.Now()); err == nil && old.Root.Equal(l.d.root) && old.UpdatedAt() >= b.UpdatedAt() {
		return nil
	}
	return l.d.publishBundle(data)
}

func (d *Dir) publishBundle(data []byte) error {
	if err := durable.Replace(d.PublishedBundle(), data, 0o644); err != nil {
		return err
	}
	d.renewBeside(data)
	return nil
}
