package node

import (
	"os"
	"time"
)

// Stamp is a fingerprint of the files that determine the traffic with a peer, made
// without reading them. As long as it is the same, the files are considered unchanged.
type Stamp [18]FileStamp

// FileStamp is a fingerprint of one file, made without reading the file. The zero
// FileStamp stands for a missing file.
type FileStamp struct {
	size     int64 // size in bytes plus 1, so that it is not zero for an empty file
	modified time.Time
	changed  time.Time // ctime; zero if the operating system does not report it
}

// StampFile returns the fingerprint of the file at path. It follows symbolic links. A
// folder, or a file that can not be accessed, is treated as missing.
func StampFile(path string) FileStamp {
	fi, err := os.Stat(path)
	if err != nil || fi.IsDir() {
		return FileStamp{}
	}
	// A program that replaces a file can set the modification time to that of the old
	// file, as rsync and package managers do, but not the change time.
	return FileStamp{fi.Size() + 1, fi.ModTime(), changeTime(fi)}
}

// Stamp returns the fingerprint of the files of one peer and of those files of the
// node that affect the peer. A file that can not be accessed is treated as missing.
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
		d.file("peers", id, successorFile),
		d.file("peers", id, suspendedFile),
		d.file("peers", id, noFollowFile),
		d.file("peers", id, nameFile), // for the status of the link
		d.file("peers", id, revokedKeysFile),
		d.file("peers", id, "nodeinfo", revokedKeysFile),
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
