package offline

import (
	"crypto"
	"fmt"
	"strconv"
	"strings"
	"time"

	"peerlink/node"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// Kind is the kind of an [Item].
type Kind string

// The kinds of items.
const (
	KindServerCert Kind = "server-certificate" // for a server of the node itself
	KindPeerCert   Kind = "peer-certificate"   // makes another node a peer
	KindInfoBundle Kind = "info-bundle"        // of the node itself
	// KindReplacement is for a certificate that makes another node a peer in the place of an earlier one.
	KindReplacement Kind = "peer-replacement"
	KindRootCSR     Kind = "root-csr" // the root key's signing request, once, for info-bundles
)

// Item describes the purpose of one of the root key's signatures. Its content has been
// verified as far as possible; an operator has to decide whether the item is wanted. No text
// in it has control characters.
type Item struct {
	Kind Kind `json:"kind"`
	// Type and ID are those of the node that the item is about: a new peer, or the node
	// itself.
	Type string `json:"node_type"`
	ID   string `json:"node_id"`
	// Fingerprint is the [pki.Fingerprint] of the key to be certified (the server's key, or
	// the peer's root key), or of this node's root key if Kind is KindRootCSR.
	Fingerprint string `json:"fingerprint,omitempty"`
	// Words are the [pki.FingerprintWords] of a root key.
	Words string `json:"fingerprint_words,omitempty"`
	// Replaces is the ID of the peer whose place the node takes, and ReplacedFingerprint that of its
	// earlier root key.
	Replaces            string `json:"replaces,omitempty"`
	ReplacedFingerprint string `json:"replaced_fingerprint,omitempty"`
	// KeepSubnet is whether the node gets the subnet of the peer that it replaces, and so its accounts.
	KeepSubnet bool     `json:"keep_subnet,omitempty"`
	Serial     string   `json:"serial,omitempty"`  // of the certificate, in hex
	Days       int      `json:"days,omitempty"`    // validity of a server certificate
	Subnet     string   `json:"subnet,omitempty"`  // given to the peer by an accounting authority
	Date       string   `json:"date,omitempty"`    // of an info-bundle
	Servers    []string `json:"servers,omitempty"` // "host:port", of the peer or in the own info-bundle
	Files      []string `json:"files,omitempty"`   // names of the files in the info-bundle that is made, or of the new peer
	// Hashes are the SHA-256 of the Files, in hex.
	Hashes map[string]string `json:"sha256,omitempty"`
	// The other values of stomp.toml in the same info-bundle.
	Host         string   `json:"host,omitempty"`
	Destination  string   `json:"destination,omitempty"`
	Login        *string  `json:"login,omitempty"`
	Passcode     bool     `json:"passcode,omitempty"` // whether there is one
	ContentTypes []string `json:"accepted_content_types,omitempty"`
	BundleURLs   []string `json:"info_bundle_urls,omitempty"`
	RevokedKeys  int      `json:"revoked_keys,omitempty"` // how many server keys the node of the info-bundle has revoked
	// ComparedWith and Changes are set by callers of [Request.Changes] and [Request.CompareReplacements].
	// ComparedWith describes the known states from which the item differs by the Changes.
	ComparedWith []string `json:"compared_with,omitempty"`
	Changes      []Change `json:"changes,omitempty"`
	Output       string   `json:"output,omitempty"` // output file on the online machine
}

// Summary returns the items of the request: server certificates, peer certificates, the root
// key's signing request, the info-bundle.
func (r *Request) Summary() []Item {
	var items []Item
	for _, s := range r.servers {
		items = append(items, r.serverItem(s))
	}
	for _, p := range r.peers {
		items = append(items, peerItem(p))
	}
	if r.needsCSR() {
		items = append(items, r.csrItem())
	}
	if r.info != nil {
		items = append(items, r.infoItem())
	}
	return items
}

func (r *Request) serverItem(s serverCert) Item {
	return Item{
		Kind: KindServerCert, Type: r.Node.Type.String(), ID: r.Node.ID,
		Fingerprint: pki.Fingerprint(s.csr.PublicKey), Serial: pki.SerialHex(s.serial), Days: s.days, Output: s.file,
	}
}

func peerItem(p peerCert) Item {
	i := Item{
		Kind: KindPeerCert, Type: p.bundle.Identity.Type.String(), ID: p.bundle.Identity.ID,
		Fingerprint: pki.Fingerprint(p.bundle.Root.PublicKey), Words: words(p.bundle.Root.PublicKey), Serial: pki.SerialHex(p.serial), Subnet: p.subnet, Servers: p.stomp.Servers,
		Host: p.stomp.Host, Destination: p.stomp.Destination, ContentTypes: p.stomp.AcceptedContentTypes, BundleURLs: p.stomp.BundleURLs,
		Login: p.stomp.Login, Passcode: p.stomp.Passcode != nil, Date: p.bundle.UpdatedAt(), RevokedKeys: len(node.RevokedIn(p.bundle)),
	}
	i.addFiles(p.bundle.Nodeinfo)
	if old := p.replaces; old != nil {
		i.Kind, i.Replaces, i.ReplacedFingerprint, i.KeepSubnet = KindReplacement, old.id, pki.Fingerprint(old.root.PublicKey), old.keepSubnet
	}
	return i
}

func words(root crypto.PublicKey) string { return strings.Join(pki.FingerprintWords(root), " ") }

func (r *Request) csrItem() Item {
	return Item{Kind: KindRootCSR, Type: r.Node.Type.String(), ID: r.Node.ID, Fingerprint: pki.Fingerprint(r.root.PublicKey), Words: words(r.root.PublicKey)}
}

func (r *Request) infoItem() Item {
	i := Item{
		Kind: KindInfoBundle, Type: r.Node.Type.String(), ID: r.Node.ID,
		Date: r.info.date, Servers: r.info.stomp.Servers, Output: r.info.file, RevokedKeys: len(r.revokes()),
	}
	c := r.info.stomp
	i.Host, i.Destination, i.Login, i.Passcode = c.Host, c.Destination, c.Login, c.Passcode != nil
	i.ContentTypes, i.BundleURLs = c.AcceptedContentTypes, c.BundleURLs
	i.addFiles(r.info.files)
	return i
}

// addFiles sets the names and hashes of the files in an info-bundle.
func (i *Item) addFiles(files []infobundle.File) {
	i.Hashes = make(map[string]string)
	for _, f := range files {
		i.Files = append(i.Files, f.Name)
		i.Hashes[f.Name] = sha256Hex(f.Data)
	}
}

// Details returns, as names and values, the properties of the item that are not part of
// String. now is the time of signing.
func (i Item) Details(now time.Time) (rows [][2]string) {
	add := func(name, value string) { rows = append(rows, [2]string{name, value}) }
	if i.Serial != "" {
		add("serial number", i.Serial)
	}
	switch i.Kind {
	case KindServerCert:
		add("valid until", now.AddDate(0, 0, i.Days).UTC().Format(time.DateOnly))
	case KindPeerCert:
		add("root key in words", i.Words)
		rows = append(rows, i.peerDetails()...)
	case KindReplacement:
		add("root key in words", i.Words)
		add("in the place of", i.Replaces)
		add("its earlier root key", i.ReplacedFingerprint)
		switch {
		case i.ID == i.Replaces:
			add("accounts", "the node keeps its ID; the earlier root key is not accepted any more")
		case i.KeepSubnet:
			add("accounts", "those of "+i.Replaces+", whose link ends for good, go to the new node")
		default:
			add("accounts", "none of "+i.Replaces+", whose link ends for good")
		}
		rows = append(rows, i.peerDetails()...)
	case KindRootCSR:
		add("root key", i.Fingerprint)
		add("in words", i.Words)
	case KindInfoBundle:
		add("revoked server keys", strconv.Itoa(i.RevokedKeys))
		rows = append(rows, i.bundleDetails()...)
		add("filed as", i.Output)
	}
	return rows
}

// peerDetails returns the validity of a peer certificate, and the values in the peer's info-bundle that are
// not part of String.
func (i Item) peerDetails() [][2]string {
	return append([][2]string{
		{"valid", "without end: it can not be taken back, only the link can be ended"},
		{"info-bundle made", i.Date},
		{"revoked server keys", strconv.Itoa(i.RevokedKeys)},
	}, i.bundleDetails()...)
}

// bundleDetails returns the values in an info-bundle that are not part of String.
func (i Item) bundleDetails() (rows [][2]string) {
	add := func(name, value string) { rows = append(rows, [2]string{name, value}) }
	add("host", fmt.Sprintf("%q", i.Host))
	add("destination", fmt.Sprintf("%q", i.Destination))
	if i.Login != nil {
		add("login", fmt.Sprintf("%q", *i.Login))
	}
	if i.Passcode {
		add("passcode", "given (not shown)")
	}
	add("accepted-content-types", fmt.Sprintf("%q", i.ContentTypes))
	add("info-bundle-urls", fmt.Sprintf("%q", i.BundleURLs))
	for _, name := range i.Files {
		add("file "+name, "SHA-256 "+i.Hashes[name])
	}
	return rows
}

// String returns the item as one line.
func (i Item) String() string {
	switch i.Kind {
	case KindServerCert:
		return fmt.Sprintf("server certificate for this node, key %s, valid %d days, for the file %s", i.Fingerprint, i.Days, i.Output)
	case KindPeerCert, KindReplacement:
		subnet, place := "", ""
		if i.Subnet != "" {
			subnet = "subnet " + i.Subnet + ", "
		}
		if i.Kind == KindReplacement {
			place = "in the place of " + i.Replaces + ", "
		}
		return fmt.Sprintf("peer certificate for %s %s, %sroot key %s, servers %s", i.Type, i.ID, place+subnet, i.Fingerprint, strings.Join(i.Servers, ", "))
	case KindRootCSR:
		return "signing request of the root key, for this node's info-bundles"
	case KindInfoBundle:
		return fmt.Sprintf("info-bundle of this node, dated %s, servers %s, with the files %s", i.Date, strings.Join(i.Servers, ", "), strings.Join(i.Files, ", "))
	}
	return string(i.Kind)
}
