package node

import (
	"bytes"
	"os"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
)

// BundleBeside returns the path of the info-bundle beside a node's directory, which "peerlink init"
// makes, and which every newer info-bundle replaces ([Dir.CreateBundle], [Locked.PublishBundle]). It
// returns "" if there is nothing beside the directory, because it is the root of the file system.
func BundleBeside(dir string) string {
	path, err := filepath.Abs(dir)
	if err != nil || filepath.Dir(path) == path {
		return ""
	}
	return path + "-bundle.zip"
}

// CurrentBundle returns the path of a file with the node's newest info-bundle: the file beside the
// directory if it has this bundle, or else the published one ([Dir.PublishedBundle]). It returns "" if
// there is none, or if the nodeinfo folder says something else now, a revoked key for example.
func (d *Dir) CurrentBundle() string {
	newest, err := durable.Read(d.PublishedBundle(), infobundle.MaxSize)
	if err != nil || !d.saysNodeinfo(newest) {
		return ""
	}
	if path := BundleBeside(d.path); path != "" {
		if data, err := durable.Read(path, infobundle.MaxSize); err == nil && bytes.Equal(data, newest) {
			return path
		}
	}
	return d.PublishedBundle()
}

// saysNodeinfo reports whether an info-bundle is one of this node, with the present files of the
// nodeinfo folder.
func (d *Dir) saysNodeinfo(bundle []byte) bool {
	b, err := infobundle.Read(bundle, time.Now())
	if err != nil || !b.Root.Equal(d.root) {
		return false
	}
	files, err := d.nodeinfo()
	if err != nil {
		return false
	}
	now := make(map[string]string)
	for _, f := range files {
		now[f.Name] = string(f.Data)
	}
	delete(now, infobundle.UpdatedAt)
	for _, f := range b.Nodeinfo {
		if f.Name == infobundle.UpdatedAt {
			continue
		}
		if data, ok := now[f.Name]; !ok || data != string(f.Data) {
			return false
		}
		delete(now, f.Name)
	}
	return len(now) == 0
}

// CheckBundleFile returns an error if [Dir.CreateBundle] could not write an info-bundle to a file now. It
// is for a check before anything else is done.
func (d *Dir) CheckBundleFile(path string) error {
	_, date, err := d.datedNodeinfo(time.Now())
	if err != nil {
		return err
	}
	if d.isBeside(path) && d.isOlderBundle(path, date) {
		return nil
	}
	return durable.CheckCreatable(path)
}

// isBeside reports whether path is the existing file beside the directory ([BundleBeside]).
func (d *Dir) isBeside(path string) bool {
	fi, err := os.Lstat(path)
	if err != nil {
		return false
	}
	beside, err := os.Lstat(BundleBeside(d.path))
	return err == nil && os.SameFile(fi, beside)
}

// isOlderBundle reports whether a file is an info-bundle of this node with an earlier date. A symbolic
// link is none: in a folder of many users it could lead anywhere.
func (d *Dir) isOlderBundle(path, date string) bool {
	if fi, err := os.Lstat(path); err != nil || !fi.Mode().IsRegular() {
		return false
	}
	data, err := durable.Read(path, infobundle.MaxSize)
	if err != nil {
		return false
	}
	b, err := infobundle.Read(data, time.Now())
	return err == nil && b.Root.Equal(d.root) && b.UpdatedAt() < date
}

// replaceBeside records and publishes a new info-bundle that replaces the file beside the directory.
func (d *Dir) replaceBeside(path string, bundle []byte, date string) error {
	if err := d.writeDate(date); err != nil {
		return err
	}
	if err := durable.ReplaceName(path, bundle, 0o644); err != nil {
		return err
	}
	return d.publishBundle(bundle)
}

// renewBeside replaces the file beside the directory by a new info-bundle, if it is an older one of this
// node. Errors are ignored: [Dir.CurrentBundle] does not return a file that is not the newest.
func (d *Dir) renewBeside(bundle []byte) {
	path := BundleBeside(d.path)
	b, err := infobundle.Read(bundle, time.Now())
	if path != "" && err == nil && d.isOlderBundle(path, b.UpdatedAt()) {
		_ = durable.ReplaceName(path, bundle, 0o644)
	}
}
