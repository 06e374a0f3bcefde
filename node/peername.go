package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"unicode"
	"unicode/utf8"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/internal/terminal"
)

// nameFile is the name of the file in a peer's directory that holds the name that the node's
// owner has given to the peer. The reference's scripts and servers do not read it.
const nameFile = "name.txt"

// maxPeerName is the maximum length of a peer's name in characters.
const maxPeerName = 64

// ErrPeerName is wrapped by the errors for a name that no peer can have, or that another peer has.
var ErrPeerName = errors.New("not a name for a peer")

// CheckPeerName checks that a peer can have the name: 1 to 64 printable characters, without spaces
// at its ends, that can be taken neither for a node ID or a part of one, nor for a flag. The error
// wraps [ErrPeerName].
func CheckPeerName(name string) error {
	if defect := nameDefect(name); defect != "" {
		return fmt.Errorf("%q is %w: %s; expected 1 to %d printable characters, not all of them hex digits", excerpt.Of(name), ErrPeerName, defect, maxPeerName)
	}
	return nil
}

// nameDefect returns the reason why no peer can have the name, or "". The reason does not quote the
// name.
func nameDefect(name string) string {
	switch {
	case name == "":
		return "it is empty"
	case !utf8.ValidString(name):
		return "it is not in UTF-8"
	case utf8.RuneCountInString(name) > maxPeerName:
		return "it is too long"
	case strings.ContainsFunc(name, func(r rune) bool { return !unicode.IsPrint(r) }), terminal.Line(name) != name:
		return "it has a character that is not printable"
	case strings.TrimSpace(name) != name:
		return "it begins or ends with a space"
	case strings.HasPrefix(name, "-"):
		return "it begins with \"-\", as flags do"
	case IsHex(name):
		return "it has hex digits only, as node IDs do"
	}
	return ""
}

// IsHex reports whether s has no other characters than hex digits, so that it can only be a node ID
// or the beginning of one.
func IsHex(s string) bool {
	return strings.Trim(s, "0123456789abcdefABCDEF") == ""
}

// PeerName returns the name that the node's owner has given to a peer, or "" if there is none; see
// [ReadPeerName].
func (d *Dir) PeerName(id string) (string, error) {
	if err := checkID(id); err != nil {
		return "", err
	}
	return ReadPeerName(d.file("peers", id))
}

// ReadPeerName reads a peer's name from the peer's directory. If there is none, it returns "". If
// the file can not be read, or holds no name that a peer can have, it returns "" and the reason,
// which does not quote the file; the peer then has no name.
func ReadPeerName(dir string) (string, error) {
	name, err := readLine(filepath.Join(dir, nameFile))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if defect := nameDefect(name); defect != "" {
		return "", fmt.Errorf("%s is %w: %s", nameFile, ErrPeerName, defect)
	}
	return name, nil
}

// SetPeerName gives a name to a peer. An empty name removes the peer's name. The error wraps
// [ErrPeerName] if no peer can have the name, or if another peer has it; the names of two peers
// differ in more than the case of letters.
func (d *Dir) SetPeerName(ctx context.Context, id, name string) error {
	if name != "" {
		if err := CheckPeerName(name); err != nil {
			return err
		}
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	dir, err := d.peerDir(id)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, nameFile)
	if name == "" {
		if err := os.Remove(path); err != nil {
			return ignoreMissing(err)
		}
		return durable.SyncDir(dir)
	}
	peers, err := d.KnownPeers()
	if err != nil {
		return err
	}
	for _, p := range peers {
		if p.ID != id && strings.EqualFold(p.Name, name) {
			return fmt.Errorf("%q is %w: peer %s has it", name, ErrPeerName, p.ID)
		}
	}
	return durable.Replace(path, []byte(name+"\n"), 0o644)
}
