package admin

import (
	"cmp"
	"strings"

	"peerlink/link"
)

// chain is a chain of certificates on a page, from the root certificate of the node that verifies to the
// server certificate of the other.
type chain struct {
	Title string
	links []link.ChainLink
}

// chainBox is a certificate of a chain.
type chainBox struct {
	link.ChainLink
	Name  string
	Arrow string   // how the certificate before it leads to this one; "" for the first
	Key   []string // its fingerprint, in groups
}

// Boxes returns the certificates.
func (c chain) Boxes() (boxes []chainBox) {
	for i, l := range c.links {
		b := chainBox{ChainLink: l, Name: roleName(l.Role), Key: groups(strings.TrimPrefix(l.Fingerprint, "sha256:"))}
		switch {
		case i == 0:
		case l.Role == "root", l.Role == "peer_root":
			b.Arrow = "is for the key of"
		default:
			b.Arrow = "has signed"
		}
		boxes = append(boxes, b)
	}
	return boxes
}

// Missing returns why the certificate is not known.
func (b chainBox) Missing() string {
	if b.Role == "peer_server" {
		return "not seen since the service started"
	}
	return "not there yet"
}

// Ends reports whether the certificate ends soon.
func (b chainBox) Ends() bool { return b.Fingerprint != "" && b.DaysLeft <= 7 }

// groups splits a text into groups of eight characters.
func groups(s string) (list []string) {
	for len(s) > 8 {
		list, s = append(list, s[:8]), s[8:]
	}
	return append(list, s)
}

// roleName returns the role of a certificate in words; see [link.Expiry].
func roleName(role string) string {
	return cmp.Or(map[string]string{
		"server":      "server certificate of this node",
		"root":        "root certificate of this node",
		"peer_root":   "root certificate of the peer",
		"issued":      "peer certificate, issued by this node",
		"received":    "peer certificate, issued by the peer",
		"peer_server": "server certificate of the peer",
	}[role], role)
}
