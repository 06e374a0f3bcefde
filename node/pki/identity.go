package pki

import (
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"peerlink/node/nodetype"

	"golang.org/x/crypto/cryptobyte"
	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// Organization is the organizationName (O) of every Swaptacular node.
const Organization = "Swaptacular Nodes Registry"

// ErrNotIdentity is returned for a name that no Swaptacular node can have.
var ErrNotIdentity = errors.New("not the name of a Swaptacular node")

// Identity is the name of a node, which is the subject of all its certificates
// ("Swaptacular SSL/TLS Certificates", section "Subject's and issuer's
// distinguished names"). Identities are equal if they compare equal with ==.
type Identity struct {
	// Type is the OU attribute.
	Type nodetype.Type
	// ID is the serialNumber attribute, in lowercase hex: 8 digits for an
	// accounting authority, 32 for agents.
	ID string
}

// String returns a form for logs and messages, such as
// "creditors-agent 09cab36b6079e09c32a9dfd60446c469".
func (id Identity) String() string { return id.Type.String() + " " + id.ID }

// Validate checks the type and the form of the ID. The error wraps [ErrNotIdentity].
func (id Identity) Validate() error {
	if id.Type.OU() == "" {
		return fmt.Errorf("%w: %v", ErrNotIdentity, id.Type)
	}
	want := 8
	if id.Type.IDDerived() {
		want = 32
	}
	if len(id.ID) != want || !isLowerHex(id.ID) {
		return fmt.Errorf("%w: node ID %q: expected %d lowercase hex digits for %v",
			ErrNotIdentity, clip(id.ID), want, id.Type)
	}
	return nil
}

// CheckKey checks that a node with this identity can have pub as its root key. The ID of
// an agent must be derived from the key. For an accounting authority, CheckKey accepts
// any key; the fingerprint must be compared by a person or with a registry.
func (id Identity) CheckKey(pub crypto.PublicKey) error {
	if !id.Type.IDDerived() {
		return nil
	}
	derived, err := DerivedID(pub)
	if err != nil {
		return err
	}
	if derived != id.ID {
		return fmt.Errorf("node ID %s is not derived from the root key: this key gives %s", id.ID, derived)
	}
	return nil
}

// Subject returns the DER encoding of the name, byte for byte as the reference's OpenSSL
// configuration produces it: three RDNs of one attribute each, O and OU as UTF8String,
// serialNumber as PrintableString.
func (id Identity) Subject() ([]byte, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	n := name{
		{{oid: oidOrganization, tag: cbasn1.UTF8String, value: []byte(Organization)}},
		{{oid: oidOrganizationalUnit, tag: cbasn1.UTF8String, value: []byte(id.Type.OU())}},
		{{oid: oidSerialNumber, tag: cbasn1.PrintableString, value: []byte(id.ID)}},
	}
	var b cryptobyte.Builder
	n.marshal(&b)
	return b.Bytes()
}

// IdentityOf parses a DER-encoded distinguished name, such as the RawSubject of a
// certificate. The name must have exactly the three attributes, in order and in the
// letter case of the specification. Errors wrap [ErrNotIdentity].
func IdentityOf(rawDN []byte) (Identity, error) {
	n, err := parseName(rawDN)
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNotIdentity, err)
	}
	types := []asn1.ObjectIdentifier{oidOrganization, oidOrganizationalUnit, oidSerialNumber}
	if len(n) != len(types) {
		return Identity{}, fmt.Errorf("%w: %d name components: expected O, OU and serialNumber", ErrNotIdentity, len(n))
	}
	var values [3]string
	for i, r := range n {
		if len(r) != 1 || !r[0].oid.Equal(types[i]) {
			return Identity{}, fmt.Errorf("%w: expected exactly O, OU and serialNumber, in this order", ErrNotIdentity)
		}
		if tag := r[0].tag; tag != cbasn1.UTF8String && tag != cbasn1.PrintableString {
			return Identity{}, fmt.Errorf("%w: expected UTF8String or PrintableString attributes", ErrNotIdentity)
		}
		values[i] = string(r[0].value)
	}
	if values[0] != Organization {
		return Identity{}, fmt.Errorf("%w: O=%q: expected %q", ErrNotIdentity, clip(values[0]), Organization)
	}
	typ, err := nodetype.ParseOU(clip(values[1]))
	if err != nil {
		return Identity{}, fmt.Errorf("%w: %w", ErrNotIdentity, err)
	}
	id := Identity{Type: typ, ID: values[2]}
	return id, id.Validate()
}

// DerivedID returns the node ID that is derived from a root key: the first 16 bytes of
// SHA-256 over the key's DER SubjectPublicKeyInfo, in hex ("Swaptacular SSL/TLS
// Certificates", section "Creditors/debtors agent nodes' serial numbers"). It fails only
// for kinds of keys that crypto/x509 can not encode.
func DerivedID(pub crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrKeyKind, err)
	}
	sum := sha256.Sum256(spki)
	return hex.EncodeToString(sum[:16]), nil
}

// Fingerprint returns the fingerprint of a key, with which people compare keys:
// "sha256:" and SHA-256 over the key's DER SubjectPublicKeyInfo, in hex. For a key that
// crypto/x509 can not encode, it returns a text that is not the fingerprint of any key.
func Fingerprint(pub crypto.PublicKey) string {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return fmt.Sprintf("no fingerprint for a key of type %T", pub)
	}
	sum := sha256.Sum256(spki)
	return "sha256:" + hex.EncodeToString(sum[:])
}

func isLowerHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// clip shortens text from another party to 64 bytes, for errors and logs.
func clip(s string) string { return clipTo(64, s) }

// clipText is like clip with 256 bytes, for errors that quote text from another party.
func clipText(s string) string { return clipTo(256, s) }

func clipTo(most int, s string) string {
	if len(s) > most {
		return strings.ToValidUTF8(s[:most], "") + "..." // without an incomplete character at the end
	}
	return s
}
