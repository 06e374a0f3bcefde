package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"peerlink/internal/durable"
)

// successorFile is the name of a file in the directory of a peer that was replaced by a node which got
// its subnet, and so its accounts. It holds the ID of that node. While the peer is deactivated, the
// messages that wait for it go to that node, and are not answered. The reference's scripts and servers
// do not read it.
const successorFile = "SUCCESSOR"

// maxSuccession is the maximum number of replacements, one after the other, that are followed.
const maxSuccession = 100

// successor returns the ID of the node that has taken the place of a peer, and has its accounts, or ""
// if there is none.
func (d *Dir) successor(id string) (string, error) {
	path := d.file("peers", id, successorFile)
	next, err := readLine(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err == nil && checkID(next) != nil {
		err = fmt.Errorf("%s: expected the node ID of the peer's successor", path)
	}
	return next, err
}

// CurrentSuccessor returns the ID of the node to which the messages for a deactivated peer go: the node
// that has its accounts now, which is the first in the chain of its successors that is not deactivated.
// It returns "" if there is none, so that the messages are to be answered. The node need not be a peer
// yet, or any more.
func (d *Dir) CurrentSuccessor(id string) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	for range maxSuccession {
		next, err := d.successor(id)
		if err != nil || next == "" {
			return "", err
		}
		date, err := d.Deactivated(next)
		if err != nil || date == "" {
			return next, err
		}
		id = next
	}
	return "", fmt.Errorf("peer %s: more than %d peers have taken its place, one after the other", id, maxSuccession)
}

// setSuccessor records, before a peer is deactivated, that next has its accounts. The caller must hold
// the directory's lock.
func (d *Dir) setSuccessor(id, next string) error {
	return durable.Replace(d.file("peers", id, successorFile), []byte(next+"\n"), 0o644)
}

// removeSuccessor removes the record of a successor that never became a peer, because the replacement
// was interrupted. The caller must hold the directory's lock.
func (d *Dir) removeSuccessor(id string) error {
	next, err := d.successor(id)
	if next == "" && err == nil || err == nil && isDir(d.file("peers", next)) {
		return nil
	}
	return ignoreMissing(os.Remove(d.file("peers", id, successorFile)))
}
