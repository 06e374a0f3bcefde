package node

import (
	"io/fs"
	"os"
	"time"
)

// Stamp is a fingerprint of the files that decide about traffic with a peer,
// made without reading them. While it stays equal, nothing has changed.
type Stamp [10]struct {
	size  int64
	mtime time.Time
}

// Stamp looks at the files of one peer, and those of the node's own that
// matter for it. A file that can not be looked at counts as absent.
func (d *Dir) Stamp(id string) (s Stamp) {
	files := [len(s)]string{
		d.file("peers", id, "root-ca.crt"),
		d.file("peers", id, "peercert.crt"),
		d.file("peers", id, "sub-ca.crt"),
		d.file("peers", id, "subnet.txt"),
		d.file("peers", id, "masq-subnet.txt"),
		d.file("peers", id, "queues.txt"),
		d.file("peers", id, "ACTIVE"),
		d.file("peers", id, "DEACTIVATED"),
		d.file("peers", id, "nodeinfo", "stomp.toml"),
		d.file("debtors-subnet.txt"),
	}
	for i, path := range files {
		if fi, err := os.Stat(path); err == nil && fi.Mode().Type() != fs.ModeDir {
			s[i].size, s[i].mtime = fi.Size()+1, fi.ModTime()
		}
	}
	return s
}
