package pki

import (
	"crypto/ed25519"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"peerlink/node/nodetype"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

const agentID = "09cab36b6079e09c32a9dfd60446c469"

// The name of a node has exactly one encoding, the reference's, and parsing it gives
// the same identity.
func TestSubject(t *testing.T) {
	for _, tt := range []struct {
		id   Identity
		want string // the serialNumber attribute, from OpenSSL's output
	}{
		{Identity{nodetype.AccountingAuthority, "1234abcd"}, "3111300f060355040513083132333461626364"},
		{Identity{nodetype.CreditorsAgent, agentID}, "31293027060355040513203039636162333662363037396530396333326139646664363034343663343639"},
		{Identity{nodetype.DebtorsAgent, agentID}, "31293027060355040513203039636162333662363037396530396333326139646664363034343663343639"},
	} {
		der, err := tt.id.Subject()
		check(t, err)
		if got := hex.EncodeToString(der); !strings.HasSuffix(got, tt.want) {
			t.Errorf("%v: got %s, want ... %s", tt.id, got, tt.want)
		}
		want := dn(rdnO(Organization), rdnOU(tt.id.Type.OU()),
			tlv(0x31, ava(oidSerialNumber, cbasn1.PrintableString, tt.id.ID)))
		if string(der) != string(want) {
			t.Errorf("%v: got %x, want %x", tt.id, der, want)
		}
		back, err := IdentityOf(der)
		if err != nil || back != tt.id {
			t.Errorf("%v: parsing its name gives %v, %v", tt.id, back, err)
		}
	}
}

// IdentityOf refuses every name that is not exactly the name of a node.
func TestIdentityOfRefuses(t *testing.T) {
	sn := func(s string) []byte { return tlv(0x31, ava(oidSerialNumber, cbasn1.PrintableString, s)) }
	o, aa, ca := rdnO(Organization), rdnOU("Accounting Authorities"), rdnOU("Creditors Agents")
	good := dn(o, aa, sn("1234abcd"))
	if _, err := IdentityOf(good); err != nil {
		t.Fatal(err)
	}
	for what, der := range map[string][]byte{
		"nothing":              nil,
		"empty name":           dn(),
		"no serialNumber":      dn(o, aa),
		"other order":          dn(aa, o, sn("1234abcd")),
		"one more attribute":   dn(o, aa, sn("1234abcd"), rdnCN("x")),
		"one RDN for all":      dn(tlv(0x31, ava(oidOrganization, cbasn1.UTF8String, Organization), ava(oidOrganizationalUnit, cbasn1.UTF8String, "Accounting Authorities"), ava(oidSerialNumber, cbasn1.PrintableString, "1234abcd"))),
		"other organization":   dn(rdnO("Swaptacular Nodes Registry Ltd"), aa, sn("1234abcd")),
		"organization in caps": dn(rdnO(strings.ToUpper(Organization)), aa, sn("1234abcd")),
		"space in OU":          dn(o, rdnOU("Accounting  Authorities"), sn("1234abcd")),
		"unknown OU":           dn(o, rdnOU("Banks"), sn("1234abcd")),
		"endless OU":           dn(o, rdnOU(strings.Repeat("x", 60000)), sn("1234abcd")),
		"upper case ID":        dn(o, aa, sn("1234ABCD")),
		"no hex":               dn(o, aa, sn("1234abcg")),
		"short ID":             dn(o, aa, sn("1234abc")),
		"empty ID":             dn(o, aa, sn("")),
		"agent's ID for AA":    dn(o, aa, sn(agentID)),
		"AA's ID for agent":    dn(o, ca, sn("1234abcd")),
		"BMPString":            dn(o, aa, tlv(0x31, ava(oidSerialNumber, tagBMPString, "\x001\x002\x003\x004\x00a\x00b\x00c\x00d"))),
		"TeletexString":        dn(o, aa, tlv(0x31, ava(oidSerialNumber, cbasn1.T61String, "1234abcd"))),
		"NUL in ID":            dn(o, aa, sn("1234abc\x00")),
		"trailing data":        append(good[:len(good):len(good)], 0),
		"cut off":              good[:len(good)-1],
		"not a SET":            dn(tlv(0x30, ava(oidOrganization, cbasn1.UTF8String, Organization)), aa, sn("1234abcd")),
		"empty SET":            dn(o, aa, tlv(0x31)),
	} {
		id, err := IdentityOf(der)
		if !errors.Is(err, ErrNotIdentity) {
			t.Errorf("%s: got %v, %v, want ErrNotIdentity", what, id, err)
		} else if len(err.Error()) > 500 {
			t.Errorf("%s: the error has %d characters", what, len(err.Error()))
		}
	}
	for _, id := range []Identity{{}, {7, agentID}, {nodetype.DebtorsAgent, ""}, {nodetype.AccountingAuthority, agentID}} {
		if _, err := id.Subject(); !errors.Is(err, ErrNotIdentity) {
			t.Errorf("Subject of %v: got %v, want ErrNotIdentity", id, err)
		}
	}
}

// The ID derived from a key is the one that the commands in the specification's
// example print.
func TestDerivedID(t *testing.T) {
	dir := t.TempDir()
	der, err := x509.MarshalPKIXPublicKey(testRSAKey().Public())
	check(t, err)
	writeFile(t, dir, "pub.der", der)
	id, err := DerivedID(testRSAKey().Public())
	check(t, err)
	out := mustOpenSSL(t, dir, "dgst", "-sha256", "-r", "pub.der")
	if !strings.HasPrefix(out, id) || len(id) != 32 {
		t.Errorf("got %s, want the first 32 digits of %s", id, out)
	}
	if got := Fingerprint(testRSAKey().Public()); got != "sha256:"+strings.Fields(out)[0] {
		t.Errorf("fingerprint: got %s, want sha256: and %s", got, out)
	}
}

// An agent's ID determines its key; an accounting authority's ID does not.
func TestCheckKey(t *testing.T) {
	pub, other := ecKey(0).Public(), ecKey(1).Public()
	derived, err := DerivedID(pub)
	check(t, err)
	agent := Identity{nodetype.DebtorsAgent, derived}
	if err := agent.CheckKey(pub); err != nil {
		t.Error(err)
	}
	if err := agent.CheckKey(other); err == nil {
		t.Error("CheckKey accepts another key")
	}
	if err := (Identity{nodetype.AccountingAuthority, "1234abcd"}).CheckKey(other); err != nil {
		t.Error(err)
	}
	if err := agent.CheckKey(struct{}{}); !errors.Is(err, ErrKeyKind) {
		t.Errorf("got %v, want ErrKeyKind", err)
	}
}

// For a key that cannot be encoded, Fingerprint returns a text that does not look
// like a fingerprint.
func TestFingerprintOfUnknownKey(t *testing.T) {
	if got := Fingerprint(struct{}{}); strings.HasPrefix(got, "sha256:") {
		t.Errorf("got %s", got)
	}
	pub, _, err := ed25519.GenerateKey(nil)
	check(t, err)
	if got := Fingerprint(pub); !strings.HasPrefix(got, "sha256:") {
		t.Errorf("got %s", got)
	}
}

// clip shortens a text between two characters, so that it remains valid UTF-8.
func TestClipBetweenCharacters(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{strings.Repeat("x", 64), strings.Repeat("x", 64)},
		{strings.Repeat("x", 65), strings.Repeat("x", 64) + "..."},
		{strings.Repeat("x", 63) + "é", strings.Repeat("x", 63) + "..."},
		{strings.Repeat("x", 62) + "éx", strings.Repeat("x", 62) + "é..."},
	} {
		if got := clip(c.text); got != c.want {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
}
