package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/node/nodetype"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// testNow is the current time in all tests.
var testNow = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

// Keys are made once: making RSA keys takes long with the race detector.
var (
	testRSAKey = sync.OnceValue(func() crypto.Signer { return mustKey(RSA3072) })
	// Two more, smaller than GenerateKey would make them.
	testRSAKey2 = sync.OnceValue(func() crypto.Signer { return mustRSA(2048) })
	testRSAKey3 = sync.OnceValue(func() crypto.Signer { return mustRSA(2048) })
	// Always the same keys, so that the inputs that one fuzzing process has found
	// are useful to the next.
	testECKeys = sync.OnceValue(func() (keys []crypto.Signer) {
		for i := range 8 {
			scalar := sha256.Sum256([]byte{byte(i)})
			key, err := ecdsa.ParseRawPrivateKey(elliptic.P256(), scalar[:])
			if err != nil {
				panic(err)
			}
			keys = append(keys, key)
		}
		return keys
	})
)

func mustKey(kind KeyKind) crypto.Signer {
	key, err := GenerateKey(kind)
	if err != nil {
		panic(err)
	}
	return key
}

func mustRSA(bits int) crypto.Signer {
	key, err := rsa.GenerateKey(rand.Reader, bits)
	if err != nil {
		panic(err)
	}
	return key
}

// ecKey returns one of a few P-256 keys.
func ecKey(i int) crypto.Signer { return testECKeys()[i] }

// testNode is a node with its root certificate.
type testNode struct {
	Authority
	id Identity
}

// newNode makes a node from a root key; aaID is "" for agents.
func newNode(t testing.TB, typ nodetype.Type, aaID string, key crypto.Signer) testNode {
	t.Helper()
	id := Identity{typ, aaID}
	if typ.IDDerived() {
		derived, err := DerivedID(key.Public())
		check(t, err)
		id.ID = derived
	}
	root, err := SelfSign(id, key, big.NewInt(1), testNow)
	check(t, err)
	return testNode{Authority{root, key}, id}
}

// server makes a server certificate of the node.
func (n testNode) server(t testing.TB, key crypto.Signer) *x509.Certificate {
	t.Helper()
	der, err := NewCSR(n.id, key, ServerCSR)
	check(t, err)
	csr, err := x509.ParseCertificateRequest(der)
	check(t, err)
	cert, err := n.SignServer(csr, big.NewInt(2), testNow, 365*24*time.Hour)
	check(t, err)
	return cert
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// certificate is a certificate that this package would not make. Fields that are not
// set get the values of a harmless certificate.
type certificate struct {
	subject, issuer []byte // DER
	key, signer     crypto.Signer
	pub             crypto.PublicKey // instead of key
	from, to        time.Time
	extensions      []pkix.Extension
	serial          int64
}

func (c certificate) der(t testing.TB) []byte {
	t.Helper()
	if c.from.IsZero() {
		c.from = testNow.Add(-time.Hour)
	}
	if c.to.IsZero() {
		c.to = testNow.AddDate(1, 0, 0)
	}
	if c.pub == nil {
		c.pub = c.key.Public()
	}
	if c.signer == nil {
		c.signer = c.key
	}
	if c.serial == 0 {
		c.serial = 100
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		RawSubject: c.subject, SerialNumber: big.NewInt(c.serial),
		NotBefore: c.from, NotAfter: c.to, ExtraExtensions: c.extensions,
	}, &x509.Certificate{RawSubject: c.issuer, PublicKey: c.signer.Public()}, c.pub, c.signer)
	check(t, err)
	return der
}

// tlv encodes one DER element.
func tlv(tag byte, content ...[]byte) []byte {
	body := bytes.Join(content, nil)
	der, err := asn1.Marshal(asn1.RawValue{Class: int(tag >> 6), IsCompound: tag&0x20 != 0, Tag: int(tag & 0x1f), Bytes: body})
	if err != nil {
		panic(err)
	}
	return der
}

// ava encodes an attribute: attribute type and value.
func ava(oid asn1.ObjectIdentifier, tag cbasn1.Tag, value string) []byte {
	typ, err := asn1.Marshal(oid)
	if err != nil {
		panic(err)
	}
	return tlv(0x30, typ, tlv(byte(tag), []byte(value)))
}

var oidCommonName = asn1.ObjectIdentifier{2, 5, 4, 3}

// Single-valued RDNs, as UTF8String.
func rdnO(s string) []byte { return tlv(0x31, ava(oidOrganization, cbasn1.UTF8String, s)) }
func rdnOU(s string) []byte {
	return tlv(0x31, ava(oidOrganizationalUnit, cbasn1.UTF8String, s))
}
func rdnCN(s string) []byte { return tlv(0x31, ava(oidCommonName, cbasn1.UTF8String, s)) }

// dn encodes a distinguished name of RDNs.
func dn(rdns ...[]byte) []byte { return tlv(0x30, rdns...) }

func dirName(rawDN []byte) []byte { return tlv(0xa4, rawDN) }
func subtree(base []byte, distances ...[]byte) []byte {
	return tlv(0x30, append([][]byte{base}, distances...)...)
}
func permit(subtrees ...[]byte) []byte  { return tlv(0xa0, subtrees...) }
func exclude(subtrees ...[]byte) []byte { return tlv(0xa1, subtrees...) }

func constraints(parts ...[]byte) pkix.Extension {
	return pkix.Extension{Id: oidNameConstraints, Critical: true, Value: tlv(0x30, parts...)}
}

func altNames(critical bool, names ...[]byte) pkix.Extension {
	return pkix.Extension{Id: oidSubjectAltName, Critical: critical, Value: tlv(0x30, names...)}
}

// caAnyDepth is CA:true without a path length.
func caAnyDepth() pkix.Extension {
	return pkix.Extension{Id: oidBasicConstraints, Critical: true, Value: []byte{0x30, 3, 0x01, 1, 0xff}}
}

// errParse means that crypto/x509 has refused a certificate when it was parsed.
var errParse = errors.New("not parsed by crypto/x509")

// openssl runs the openssl program in dir, and returns its output and whether it
// succeeded. The test is skipped if the program is not installed.
func openssl(t testing.TB, dir string, args ...string) (string, bool) {
	t.Helper()
	path, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl program: skipped the comparison with what OpenSSL does")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(out), err == nil
}

// mustOpenSSL is like openssl, but fails the test if the command does not succeed.
func mustOpenSSL(t testing.TB, dir string, args ...string) string {
	t.Helper()
	out, ok := openssl(t, dir, args...)
	if !ok {
		t.Fatalf("openssl %s:\n%s", strings.Join(args, " "), out)
	}
	return out
}

func writeFile(t testing.TB, dir, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(dir, name)
	check(t, os.WriteFile(path, data, 0o600))
	return path
}

func readFile(t testing.TB, dir, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(dir, name))
	check(t, err)
	return data
}

func certPEM(ders ...[]byte) []byte {
	var out []byte
	for _, der := range ders {
		out = append(out, pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: der})...)
	}
	return out
}

func unknownCritical() pkix.Extension {
	return pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, 4, 5}, Critical: true, Value: []byte{5, 0}}
}

// extKeyUsage returns an extKeyUsage extension with one purpose, of those under
// id-kp.
func extKeyUsage(purpose byte) pkix.Extension {
	return pkix.Extension{Id: oidExtKeyUsage, Value: tlv(0x30, []byte{0x06, 8, 0x2b, 6, 1, 5, 5, 7, 3, purpose})}
}

func serverAuthOnly() pkix.Extension { return extKeyUsage(1) }
func clientAuthOnly() pkix.Extension { return extKeyUsage(2) }

// keyUsage returns a keyUsage extension with the bits of one byte, of which 4 is
// keyCertSign and so on.
func keyUsage(bits byte) pkix.Extension {
	return pkix.Extension{Id: oidKeyUsage, Critical: true, Value: []byte{0x03, 2, 0, bits}}
}

var weakRSA = sync.OnceValue(func() crypto.Signer { return mustRSA(1024) })
