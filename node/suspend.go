package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/internal/terminal"
)

// suspendedFile is the name of a file in a peer's directory. While it exists, there is no
// traffic with the peer. Its first line holds the date, its second line the reason, if
// there is one. The reference's scripts and servers do not read it.
const suspendedFile = "SUSPENDED"

// maxSuspendReason is the maximum length, in bytes, of the reason for a suspension: the
// peer is sent it in a header, which may have 500 bytes in the reference implementation.
const maxSuspendReason = 200

// Suspension is a pause of the link with a peer.
type Suspension struct {
	Since  string // date, or "unknown date"
	Reason string // for the peer's owner; may be empty
}

// checkSuspendReason checks that text can be the reason for a suspension: at most 200 bytes of
// printable characters.
func checkSuspendReason(text string) error {
	if !utf8.ValidString(text) || len(text) > maxSuspendReason ||
		strings.ContainsFunc(text, func(r rune) bool { return !unicode.IsPrint(r) }) || terminal.Line(text) != text {
		return fmt.Errorf("%q can not be the reason of a suspension: expected one line of at most %d bytes, with printable characters only", excerpt.Of(text), maxSuspendReason)
	}
	return nil
}

// Suspended returns the suspension of the link with a peer, or nil if the link is not suspended. It
// does not read the peer's other files. A link counts as suspended also if the content of its
// file is not valid.
func (d *Dir) Suspended(id string) (*Suspension, error) {
	if err := checkID(id); err != nil {
		return nil, err
	}
	data, err := readText(d.file("peers", id, suspendedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	date, reason, _ := strings.Cut(string(data), "\n")
	s := &Suspension{Since: strings.TrimSpace(date), Reason: strings.TrimSpace(reason)}
	if _, err := time.Parse(time.DateOnly, s.Since); err != nil {
		s.Since = "unknown date"
	}
	if checkSuspendReason(s.Reason) != nil {
		s.Reason = ""
	}
	return s, nil
}

// SuspendPeer suspends the link with a registered peer, until [Dir.ResumePeer]: nothing is sent, and
// connections of the peer are refused with the reason, which may be empty. Messages to the
// peer stay in their queues. If the link is suspended already, SuspendPeer changes the reason. It works
// whatever the peer's other files hold.
func (d *Dir) SuspendPeer(ctx context.Context, id, reason string) error {
	if err := checkSuspendReason(reason); err != nil {
		return err
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	date, err := d.Deactivated(id)
	if err != nil {
		return err
	}
	if date != "" {
		return fmt.Errorf("%w (%s): there is no link with %s that could be suspended", ErrDeactivated, excerpt.Of(date), id)
	}
	if err := d.checkRegistered(id, "suspended"); err != nil {
		return err
	}
	before, err := d.Suspended(id)
	if err != nil {
		return err
	}
	since := time.Now().UTC().Format(time.DateOnly)
	if before != nil {
		since = before.Since
	}
	path := d.file("peers", id, suspendedFile)
	err = durable.Replace(path, []byte(strings.TrimSuffix(since+"\n"+reason, "\n")+"\n"), 0o644)
	if err != nil && durable.CreateEmpty(path, 0o644) == nil {
		return nil // on a full disk, the suspension is more important than its date
	}
	return err
}

// ResumePeer ends the suspension of the link with a peer. It returns false if the link was not
// suspended.
func (d *Dir) ResumePeer(ctx context.Context, id string) (changed bool, err error) {
	unlock, err := d.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	dir, err := d.peerDir(id)
	if err != nil {
		return false, err
	}
	if err := os.Remove(filepath.Join(dir, suspendedFile)); err != nil {
		return false, ignoreMissing(err)
	}
	return true, durable.SyncDir(dir)
}
