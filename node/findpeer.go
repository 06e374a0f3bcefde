package node

import (
	"fmt"
	"slices"
	"strings"

	"peerlink/internal/excerpt"
)

// KnownPeer is a peer's node ID, and the name that the node's owner has given to it, if any.
type KnownPeer struct{ ID, Name string }

// String returns the ID, followed by the name if there is one.
func (p KnownPeer) String() string {
	if p.Name == "" {
		return p.ID
	}
	return p.ID + " (" + p.Name + ")"
}

// KnownPeers returns the IDs and names of all peers, sorted by ID. It reads no other files of the
// peers, which may be damaged.
func (d *Dir) KnownPeers() ([]KnownPeer, error) {
	ids, err := d.PeerIDs()
	if err != nil {
		return nil, err
	}
	peers := make([]KnownPeer, 0, len(ids))
	for _, id := range ids {
		name, _ := d.PeerName(id) // a file without a valid name counts as none
		peers = append(peers, KnownPeer{id, name})
	}
	return peers, nil
}

// FindPeer returns the node ID of the peer that an operator means by text; see [FindPeer].
func (d *Dir) FindPeer(text string) (id string, err error) {
	if checkID(text) == nil && isDir(d.file("peers", text)) {
		return text, nil // without reading the other peers
	}
	peers, err := d.KnownPeers()
	if err != nil {
		return "", err
	}
	return FindPeer(peers, text)
}

// minPrefix is the minimum number of hex digits in the beginning of an ID that identifies a peer.
const minPrefix = 4

// FindPeer returns the node ID of the peer that an operator means by text: the peer's ID, its name,
// regardless of the case of letters, or at least 4 hex digits with which the ID of only one peer
// begins. If there is no such peer, the error wraps [ErrUnknownPeer]. If several peers could be
// meant, the error lists them. Fewer than 4 hex digits are always an error, which does not wrap
// ErrUnknownPeer.
func FindPeer(peers []KnownPeer, text string) (id string, err error) {
	if slices.ContainsFunc(peers, func(p KnownPeer) bool { return p.ID == text }) {
		return text, nil
	}
	meant := func(p KnownPeer) bool { return p.Name != "" && strings.EqualFold(p.Name, text) }
	hex := IsHex(text) // then text is not the name of a peer, see CheckPeerName
	if hex {
		prefix := strings.ToLower(text)
		meant = func(p KnownPeer) bool { return strings.HasPrefix(p.ID, prefix) }
	}
	var found []KnownPeer
	for _, p := range peers {
		if meant(p) {
			found = append(found, p)
		}
	}
	switch {
	case hex && len(text) < minPrefix:
		return "", fmt.Errorf("%q is too short for a node ID: expected the ID, at least its first %d digits, or the peer's name", text, minPrefix)
	case len(found) == 1:
		return found[0].ID, nil
	case len(found) > 1:
		return "", ambiguousError(found, text)
	case hex:
		return "", unknownPeerError(excerpt.Of(text))
	}
	return "", fmt.Errorf("%w %q is not a node ID and not the name of a peer: \"peerlink peer list\" shows those that are known", ErrUnknownPeer, excerpt.Of(text))
}

// maxCandidates is the maximum number of peers that an error lists.
const maxCandidates = 10

func ambiguousError(found []KnownPeer, text string) error {
	var list []string
	for _, p := range found[:min(len(found), maxCandidates)] {
		list = append(list, p.String())
	}
	if n := len(found) - len(list); n > 0 {
		list = append(list, fmt.Sprintf("and %d more", n))
	}
	return fmt.Errorf("%q can mean %d peers: expected more digits, or the ID of one: %s", excerpt.Of(text), len(found), strings.Join(list, ", "))
}
