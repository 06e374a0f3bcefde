package offline

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// Change is a changed value in the node's own info-bundle. A missing value is "".
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

// KnownPeer is what this machine knows of a peer that is to be replaced.
type KnownPeer struct {
	Peer    string   // node ID
	Since   string   // describes where the state was found; "" if nothing is known
	Changes []Change // by the replacement, compared with that state
}

// ReplacementChanges compares the replacements of peers in the request with what d, this machine's copy
// of the node's directory, and the record of what was signed here say of these peers. The result has an
// element for each item of the kind [KindReplacement], in the order of [Request.Summary].
func (r *Request) ReplacementChanges(d *node.Dir) (list []KnownPeer, err error) {
	record, err := signrecord.Read(signRecordPath(d))
	if err != nil {
		return nil, err
	}
	for _, p := range r.peers {
		if p.replaces == nil {
			continue
		}
		known, before := KnownPeer{Peer: p.replaces.id}, []setting(nil)
		last := -1
		for i, e := range record {
			if e.Kind == signrecord.PeerCert && e.NodeID == p.replaces.id {
				last = i
			}
		}
		peer, err := d.Peer(p.replaces.id)
		switch {
		case last >= 0:
			known.Since = fmt.Sprintf("the certificate that was signed here on %s", record[last].Time)
			before = peerSettings(record[last].NodeID, record[last].Fingerprint, record[last].Subnet, nil)
		case err == nil:
			known.Since = "the copy of the peer in " + d.Path()
			before = peerSettings(peer.Identity.ID, pki.Fingerprint(peer.Root.PublicKey), peer.Subnet, peer.Stomp)
		case !errors.Is(err, node.ErrUnknownPeer):
			return nil, err
		}
		if known.Since != "" {
			var stomp *node.StompConfig
			if last < 0 && peer.Stomp != nil {
				stomp = p.stomp
			}
			after := peerSettings(p.bundle.Identity.ID, pki.Fingerprint(p.bundle.Root.PublicKey), p.subnet, stomp)
			known.Changes = compareSettings(before, after)
			if claimed := pki.Fingerprint(p.replaces.root.PublicKey); before[1].shown != claimed && len(known.Changes) > 0 {
				known.Changes = append(known.Changes, Change{"the earlier root key, as the request names it,", before[1].shown, claimed})
			}
		}
		list = append(list, known)
	}
	return list, nil
}

// peerSettings returns what is compared of a peer. stomp is nil if it is not known.
func peerSettings(id, fingerprint, subnet string, stomp *node.StompConfig) []setting {
	list := []setting{{"node ID", id, []byte(id)}, {"root key", fingerprint, []byte(fingerprint)}}
	if subnet != "" {
		list = append(list, setting{"subnet", subnet, []byte(subnet)})
	}
	if stomp != nil {
		for _, v := range stompValues(stomp) {
			list = append(list, setting{v[0], v[1], []byte(v[1])})
		}
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
		r, err = ReadRequest(data, now)
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

// settingsOf returns the values in an info-bundle: the values of stomp.toml, the date, and
// the hash of each file. The hashes cover values that this version does not support.
func settingsOf(files []infobundle.File) []setting {
	var list []setting
	for _, f := range files {
		switch f.Name {
		case infobundle.StompTOML:
			list = append(list, stompSettings(f.Data)...)
		case infobundle.UpdatedAt:
			date := infobundle.DateOf(f.Data)
			list = append(list, setting{"the date", date, []byte(date)})
		}
	}
	for _, f := range files {
		if f.Name != infobundle.UpdatedAt {
			list = append(list, setting{"the file " + f.Name, "SHA-256 " + sha256Hex(f.Data), f.Data})
		}
	}
	return list
}

func stompSettings(data []byte) []setting {
	c, err := node.ParseStompTOML(data, nodeIDVariable)
	if err != nil {
		return nil // the file as a whole is compared
	}
	var list []setting
	for _, v := range stompValues(c) {
		list = append(list, setting{v[0], v[1], []byte(v[1])})
	}
	if c.Passcode != nil {
		list = append(list, setting{"passcode", "given (not shown)", []byte(*c.Passcode)})
	}
	return list
}

// nodeIDVariable is passed as the peer's node ID when stomp.toml is parsed, so that the
// variable remains visible in the values.
const nodeIDVariable = "${NODE_ID}"

// stompValues returns the effective values of stomp.toml, except for the passcode.
func stompValues(c *node.StompConfig) [][2]string {
	values := [][2]string{
		{"servers", strings.Join(c.Servers, ", ")},
		{"host", fmt.Sprintf("%q", c.Host)},
		{"destination", fmt.Sprintf("%q", c.Destination)},
	}
	if c.Login != nil {
		values = append(values, [2]string{"login", fmt.Sprintf("%q", *c.Login)})
	}
	values = append(values, [2]string{"accepted-content-types", fmt.Sprintf("%q", c.AcceptedContentTypes)})
	if len(c.BundleURLs) > 0 {
		values = append(values, [2]string{"info-bundle-urls", strings.Join(c.BundleURLs, ", ")})
	}
	return values
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
