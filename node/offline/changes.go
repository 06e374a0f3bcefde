package offline

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// Change is a value in a request that differs from an earlier one. A missing value is "".
type Change struct {
	What   string `json:"what"`
	Before string `json:"before"`
	After  string `json:"after"`
}

// String returns the change as one line.
func (c Change) String() string {
	switch {
	case c.Before == "":
		return fmt.Sprintf("%s is new: %s", c.What, c.After)
	case c.After == "":
		return fmt.Sprintf("%s is no more, it was %s", c.What, c.Before)
	}
	return fmt.Sprintf("%s is %s, it was %s", c.What, c.After, c.Before)
}

// Changes compares the requested info-bundle with the latest state in d, this machine's
// copy of the node's directory: the info-bundle that was last signed here, or the nodeinfo
// folder if that is newer. since describes which of the two was used. If the request has
// no info-bundle, there are no changes.
func (r *Request) Changes(d *node.Dir, now time.Time) (since string, changes []Change, err error) {
	if r.info == nil {
		return "", nil, nil
	}
	files, err := d.NodeinfoFiles()
	if err != nil {
		return "", nil, err
	}
	since = "the nodeinfo folder of " + d.Path()
	last, err := lastSigned(d, now)
	if err != nil {
		return "", nil, err
	}
	if last != nil && last.info.date >= dateIn(files) {
		since = fmt.Sprintf("what was last signed here, dated %s", last.info.date)
		files = last.info.files
	}
	return since, compareSettings(settingsOf(files), settingsOf(r.info.files)), nil
}

// ChangesSinceSigned compares the files of a new info-bundle of the node with the info-bundle that
// was last signed in d for a request, which since describes. If none was signed, since is "".
func ChangesSinceSigned(d *node.Dir, files []infobundle.File, now time.Time) (since string, changes []Change, err error) {
	last, err := lastSigned(d, now)
	if last == nil || err != nil {
		return "", nil, err
	}
	return "what was last signed here, dated " + last.info.date, compareSettings(settingsOf(last.info.files), settingsOf(files)), nil
}

// ReplacementComparison is how the replacement of a peer differs from what this machine knows of the
// peer.
type ReplacementComparison struct {
	Peer     string       // node ID of the peer that is to be replaced
	Compared []Comparison // empty if nothing is known
}

// Comparison is how a request differs from a state that is known on this machine.
type Comparison struct {
	Since   string // describes where the state was found
	Changes []Change
}

// CompareReplacements compares the replacements of peers in the request with the record of what was signed
// here, and with d, this machine's copy of the node's directory: either may be newer, and only the copy has
// the values of a peer's stomp.toml. The result has an element for each item of the kind
// [KindReplacement], in the order of [Request.Summary].
func (r *Request) CompareReplacements(d *node.Dir) (list []ReplacementComparison, err error) {
	record, err := signrecord.Read(signRecordPath(d))
	if err != nil {
		return nil, err
	}
	for _, p := range r.peers {
		if p.replaces == nil {
			continue
		}
		c := ReplacementComparison{Peer: p.replaces.id}
		if e := record.LastPeer(p.replaces.id); e != nil {
			c.Compared = append(c.Compared, Comparison{"the certificate that was signed here on " + e.Time, p.compare(e.Certificate)})
		}
		peer, err := d.Peer(p.replaces.id)
		if err == nil {
			given := "" // peer.Subnet is given to the peer only by an accounting authority
			if r.Node.Type == nodetype.AccountingAuthority {
				given = peer.Subnet
			}
			changes := p.compare(signrecord.PeerCertificate(peer.Identity, peer.Root, given, ""))
			changes = append(changes, compareSettings(bundleSettings(peer.Stomp, peer.UpdatedAt), bundleSettings(p.stomp, p.bundle.UpdatedAt()))...)
			c.Compared = append(c.Compared, Comparison{"the copy of the peer in " + d.Path(), changes})
		} else if !errors.Is(err, node.ErrUnknownPeer) {
			return nil, err
		}
		list = append(list, c)
	}
	return list, nil
}

// compare compares the requested peer certificate with an earlier one of the peer that is replaced. If the
// earlier one is not for the root certificate that is replaced according to the request, that is a change
// too, unless the replacement was made before.
func (p peerCert) compare(before signrecord.Certificate) []Change {
	after := signrecord.PeerCertificate(p.bundle.Identity, p.bundle.Root, p.subnet, "")
	changes := compareSettings([]setting{textSetting("node ID", before.NodeID)}, []setting{textSetting("node ID", after.NodeID)})
	changes = append(changes, compareRoots("%s", before, after)...)
	if before.Subnet != after.Subnet {
		changes = append(changes, Change{"subnet", before.Subnet, after.Subnet})
	}
	if before.Root != after.Root {
		claimed := signrecord.PeerCertificate(pki.Identity{Type: p.bundle.Identity.Type, ID: p.replaces.id}, p.replaces.root, "", "")
		changes = append(changes, compareRoots("the earlier %s, as the request names it,", before, claimed)...)
	}
	return changes
}

// compareRoots compares the root certificates in two records. what is the format of the name of a change.
func compareRoots(what string, before, after signrecord.Certificate) []Change {
	switch {
	case before.Root == after.Root:
		return nil
	case before.Fingerprint != after.Fingerprint:
		return []Change{{fmt.Sprintf(what, "root key"), before.Fingerprint, after.Fingerprint}}
	}
	return []Change{{fmt.Sprintf(what, "root certificate"), "SHA-256 " + before.Root, "SHA-256 " + after.Root}}
}

// bundleSettings returns the values in a peer's info-bundle that have an effect here. stomp is nil if there
// is no usable stomp.toml.
func bundleSettings(stomp *node.StompConfig, date string) (list []setting) {
	if stomp != nil {
		list = stompSettings(stomp)
	}
	if date != "" {
		list = append(list, textSetting("the date", date))
	}
	return list
}

// lastSigned returns the last request with an info-bundle that [Request.RecordSigned] has stored,
// or nil if there is none.
func lastSigned(d *node.Dir, now time.Time) (*Request, error) {
	path := filepath.Join(d.Path(), filepath.FromSlash(node.LastSigned))
	data, err := durable.Read(path, MaxSize)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var r *Request
	if err == nil {
		r, err = readStored(data, now)
	}
	if err == nil && (r.info == nil || r.Node != d.Identity()) {
		err = errors.New("it has no info-bundle of this node")
	}
	if err != nil {
		return nil, fmt.Errorf("the info-bundle that was last signed here can not be read: %w; if you know the cause, remove %s", err, path)
	}
	return r, nil
}

// dateIn returns the date in the files of an info-bundle, or "" if there is none.
func dateIn(files []infobundle.File) string {
	for _, f := range files {
		if f.Name == infobundle.UpdatedAt {
			return infobundle.DateOf(f.Data)
		}
	}
	return ""
}

// setting is a value in an info-bundle.
type setting struct {
	name  string
	shown string // the value as displayed
	value []byte
}

// textSetting returns a setting whose value is displayed as it is.
func textSetting(name, value string) setting { return setting{name, value, []byte(value)} }

// settingsOf returns the values in an info-bundle: the values of stomp.toml, the date, the revoked keys, and
// the hash of each file. The hashes cover values that this version does not support.
func settingsOf(files []infobundle.File) []setting {
	var list []setting
	for _, f := range files {
		switch f.Name {
		case infobundle.StompTOML:
			// A file that can not be parsed is compared as a whole.
			if c, err := node.ParseStompTOML(f.Data, nodeIDVariable); err == nil {
				list = append(list, stompSettings(c)...)
			}
		case infobundle.UpdatedAt:
			list = append(list, textSetting("the date", infobundle.DateOf(f.Data)))
		}
	}
	for _, key := range slices.Sorted(maps.Keys(node.RevokedIn(&infobundle.Bundle{Nodeinfo: files}))) {
		list = append(list, textSetting("the server key "+key, "revoked"))
	}
	for _, f := range files {
		if f.Name != infobundle.UpdatedAt {
			list = append(list, setting{"the file " + f.Name, "SHA-256 " + sha256Hex(f.Data), f.Data})
		}
	}
	return list
}

// nodeIDVariable is passed as the peer's node ID when stomp.toml is parsed, so that the
// variable remains visible in the values.
const nodeIDVariable = "${NODE_ID}"

// stompSettings returns the effective values of stomp.toml. The passcode is compared, and not displayed.
func stompSettings(c *node.StompConfig) []setting {
	list := []setting{
		textSetting("servers", strings.Join(c.Servers, ", ")),
		textSetting("host", fmt.Sprintf("%q", c.Host)),
		textSetting("destination", fmt.Sprintf("%q", c.Destination)),
	}
	if c.Login != nil {
		list = append(list, textSetting("login", fmt.Sprintf("%q", *c.Login)))
	}
	list = append(list, textSetting("accepted-content-types", fmt.Sprintf("%q", c.AcceptedContentTypes)))
	if len(c.BundleURLs) > 0 {
		list = append(list, textSetting("info-bundle-urls", fmt.Sprintf("%q", c.BundleURLs)))
	}
	if c.Passcode != nil {
		list = append(list, setting{"passcode", "given (not shown)", []byte(*c.Passcode)})
	}
	return list
}

func compareSettings(before, after []setting) []Change {
	var changes []Change
	old := make(map[string]setting)
	for _, s := range before {
		old[s.name] = s
	}
	for _, s := range after {
		was, there := old[s.name]
		delete(old, s.name)
		if !there {
			changes = append(changes, Change{What: s.name, After: s.shown})
		} else if !bytes.Equal(was.value, s.value) {
			shown := was.shown
			if shown == s.shown {
				shown = "another one"
			}
			changes = append(changes, Change{s.name, shown, s.shown})
		}
	}
	for _, s := range before {
		if _, gone := old[s.name]; gone {
			changes = append(changes, Change{What: s.name, Before: s.shown})
		}
	}
	return changes
}
