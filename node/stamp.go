package node

import (
	"os"
	"time"
)

// Stamp is a fingerprint of the files that decide about traffic with a peer,
// made without reading them. While it stays equal, nothing has changed.
type Stamp [13]FileStamp

// FileStamp is a fingerprint of one file, made without reading it. The zero
// FileStamp is that of a file that is absent.
type FileStamp struct {
	size     int64 // plus 1
	modified time.Time
	changed  time.Time // in any way; zero where the system does not report it
}

// StampFile makes the fingerprint of the file at a path, or at the end of the
// symbolic links there. A file that can not be looked at counts as absent.
func StampFile(path string) FileStamp {
	fi, err := os.Stat(path)
	if err != nil || fi.IsDir() {
		return FileStamp{}
	}
	// A program that replaces a file can give it the size and the modification time of
	// the old one, as rsync and package managers do; not the time of the change.
	return FileStamp{fi.Size() + 1, fi.ModTime(), changeTime(fi)}
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
		d.file("peers", id, noFollow),
		d.file("peers", id, "nodeinfo", "stomp.toml"),
		d.file("peers", id, "nodeinfo", "updated-at.txt"),
		d.file("creditors-subnet.txt"),
		d.file("debtors-subnet.txt"),
	}
	for i, path := range files {
		s[i] = StampFile(path)
	}
	return s
}
