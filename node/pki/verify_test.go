package pki

import (
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/internal/costtest"
	"peerlink/node/nodetype"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// opensslResult is the result of OpenSSL for a chain, compared with that of this
// package.
type opensslResult int

const (
	agrees      opensslResult = iota
	accepts                   // OpenSSL accepts what is refused here
	refuses                   // OpenSSL refuses what is accepted here
	notCompared               // OpenSSL does not verify the chain
)

// verifyCase is a chain, from a leaf at the beginning to a trusted certificate at
// the end. The i-th certificate is signed with the key of the next one, and has its
// subject as issuer, unless other values are set.
type verifyCase struct {
	what    string
	chain   []certificate
	usage   x509.ExtKeyUsage // 0 is any
	want    error            // a Rule, errParse, or nil
	openssl opensslResult
}

// The names in the hostile cases: B is a peer, which impersonates the peer C.
var (
	nameA = dn(rdnO("Nodes"), rdnOU("A"))
	nameB = dn(rdnO("Nodes"), rdnOU("B"), rdnCN("1"))
	nameC = dn(rdnO("Nodes"), rdnOU("C"), rdnCN("2"))
)

func onlyB() pkix.Extension { return constraints(permit(subtree(dirName(nameB)))) }

// under returns a chain from the certificates below, over A's certificate for B with
// the extensions peer, to A's root.
func under(peer []pkix.Extension, below ...certificate) []certificate {
	b := certificate{subject: nameB, extensions: append([]pkix.Extension{caAnyDepth(), keyUsageCA()}, peer...)}
	return append(below, b, certificate{subject: nameA, extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}})
}

func server(subject []byte, more ...pkix.Extension) certificate {
	return certificate{subject: subject, extensions: append([]pkix.Extension{basicConstraintsLeaf(), keyUsageServer()}, more...)}
}

func authority(subject []byte, more ...pkix.Extension) certificate {
	return certificate{subject: subject, extensions: append([]pkix.Extension{caAnyDepth(), keyUsageCA()}, more...)}
}

func verifyCases() []verifyCase {
	list := func(e ...pkix.Extension) []pkix.Extension { return e }
	rdn := func(oid asn1.ObjectIdentifier, tag cbasn1.Tag, s string) []byte { return tlv(0x31, ava(oid, tag, s)) }
	// nameB in other string types, case and spacing.
	printableB := dn(rdn(oidOrganization, cbasn1.PrintableString, " nodes"), rdn(oidOrganizationalUnit, cbasn1.IA5String, "b "), rdnCN("1"))
	wideB := dn(rdn(oidOrganization, tagBMPString, "\x00N\x00O\x00D\x00E\x00S"),
		rdn(oidOrganizationalUnit, tagUniversalString, "\x00\x00\x00b"), rdn(oidCommonName, cbasn1.T61String, "1"))
	longB := dn(rdnO("Nodes"), rdnOU("B"), rdnCN("1"), rdnCN("more"))
	setOf := func(avas ...[]byte) []byte { return dn(rdnO("Nodes"), tlv(0x31, avas...)) }
	avaOU, avaCN := ava(oidOrganizationalUnit, cbasn1.UTF8String, "B"), ava(oidCommonName, cbasn1.UTF8String, "1")
	only := func(name []byte) pkix.Extension { return constraints(permit(subtree(dirName(name)))) }
	not := func(name []byte) pkix.Extension { return constraints(exclude(subtree(dirName(name)))) }
	form := func(base []byte) pkix.Extension { return constraints(permit(subtree(dirName(nameB)), subtree(base))) }
	with := func(c certificate, change func(*certificate)) certificate { change(&c); return c }
	over := func(c *certificate) { c.to = testNow.Add(-time.Second) }
	early := func(c *certificate) { c.from = testNow.Add(time.Hour) }
	email := dn(rdnO("Nodes"), rdnOU("B"), rdnCN("1"), rdn(oidEmailAddress, cbasn1.IA5String, "b@b.example"))
	dns := func(s string) []byte { return tlv(0x82, []byte(s)) }

	return []verifyCase{
		// Valid chains of peers.
		{what: "server of B", chain: under(list(onlyB()), server(nameB))},
		{what: "longer name", chain: under(list(onlyB()), server(longB))},
		{what: "authority below B, in B's name", chain: under(list(onlyB()), server(nameB), authority(longB))},

		// Impersonation.
		{what: "server in C's name", chain: under(list(onlyB()), server(nameC)), want: ruleNameConstraints},
		{what: "authority in C's name", chain: under(list(onlyB()), server(nameC), authority(nameC)), want: ruleNameConstraints},
		{what: "authority in C's name for B's server", chain: under(list(onlyB()), server(nameB), authority(nameC)), want: ruleNameConstraints},
		{what: "shorter name", chain: under(list(onlyB()), server(dn(rdnO("Nodes"), rdnOU("B")))), want: ruleNameConstraints},
		{what: "other last component", chain: under(list(onlyB()), server(dn(rdnO("Nodes"), rdnOU("B"), rdnCN("12")))), want: ruleNameConstraints},
		{what: "other order", chain: under(list(onlyB()), server(dn(rdnOU("B"), rdnO("Nodes"), rdnCN("1")))), want: ruleNameConstraints},
		{what: "B's name as one component", chain: under(list(onlyB()), server(setOf(avaOU, avaCN))), want: ruleNameConstraints},
		{what: "C in subjectAltName", chain: under(list(onlyB()), server(nameB, altNames(false, dirName(nameC)))), want: ruleNameConstraints},
		{what: "C in subjectAltName, critical", chain: under(list(onlyB()), server(nameB, altNames(true, dirName(nameC)))), want: ruleNameConstraints},
		{what: "C after B in subjectAltName", chain: under(list(onlyB()), server(nameB, altNames(false, dns("b.example"), dirName(nameB), dirName(nameC)))), want: ruleNameConstraints},
		{what: "C in subjectAltName of an authority", chain: under(list(onlyB()), server(nameB), authority(longB, altNames(false, dirName(nameC)))), want: ruleNameConstraints},
		{what: "widened constraint below", chain: under(list(onlyB()), server(nameC), authority(longB, only(dn()))), want: ruleNameConstraints},
		{what: "constraint replaced by a self-issued authority", chain: under(list(onlyB()), server(nameC), authority(nameB, only(nameC))), want: ruleNameConstraints},
		{what: "leaf issued by its own name", chain: under(list(only(nameC)), server(nameB)), want: ruleNameConstraints},

		// Names without a subject.
		{what: "empty subject, B in subjectAltName", chain: under(list(onlyB()), server(dn(), altNames(true, dirName(nameB))))},
		{what: "empty subject, C in subjectAltName", chain: under(list(onlyB()), server(dn(), altNames(true, dirName(nameC)))), want: ruleNameConstraints},
		{what: "no name at all", chain: under(list(onlyB()), server(dn()))},

		// Comparison.
		{what: "constraint in other string types", chain: under(list(only(printableB)), server(nameB))},
		{what: "constraint in wide string types", chain: under(list(only(wideB)), server(nameB))},
		{what: "server's name in other string types", chain: under(list(onlyB()), server(printableB))},
		{what: "sets in another order", chain: under(list(only(setOf(avaOU, avaCN))), server(setOf(avaCN, avaOU)))},
		{what: "sets with one more", chain: under(list(only(dn(rdnO("Nodes"), rdnOU("B")))), server(setOf(avaOU, avaCN))), want: ruleNameConstraints},
		{what: "case beyond ASCII", chain: under(list(only(dn(rdnO("É")))), server(dn(rdnO("é")))), want: ruleNameConstraints},
		{what: "same letters beyond ASCII", chain: under(list(only(dn(rdnO("é")))), server(dn(rdnO("é"))))},
		{what: "excluded, other letters beyond ASCII", chain: under(list(not(dn(rdnO("É")))), server(dn(rdnO("é")))), want: ruleNameConstraints,
			openssl: accepts}, // OpenSSL ignores the case of ASCII letters only, so that the names differ
		{what: "excluded, Kelvin sign", chain: under(list(not(dn(rdnO("\u212a")))), server(dn(rdnO("k")))), want: ruleNameConstraints,
			openssl: accepts}, // as above

		// One or more permitted and excluded subtrees.
		{what: "one of two permitted", chain: under(list(constraints(permit(subtree(dirName(nameC)), subtree(dirName(nameB))))), server(nameB))},
		{what: "all permitted", chain: under(list(only(dn())), server(nameC))},
		{what: "excluded", chain: under(list(not(nameC)), server(nameC)), want: ruleNameConstraints},
		{what: "excluded subtree", chain: under(list(not(dn(rdnO("nodes")))), server(nameC)), want: ruleNameConstraints},
		{what: "all excluded", chain: under(list(not(dn())), server(nameC)), want: ruleNameConstraints},
		{what: "others excluded", chain: under(list(not(nameC)), server(nameB))},
		{what: "permitted and excluded", chain: under(list(constraints(permit(subtree(dirName(dn(rdnO("Nodes"))))), exclude(subtree(dirName(nameC))))), server(nameC)), want: ruleNameConstraints},
		{what: "permitted, other excluded", chain: under(list(constraints(permit(subtree(dirName(dn(rdnO("Nodes"))))), exclude(subtree(dirName(nameC))))), server(nameB))},
		{what: "intersection", chain: under(list(only(dn(rdnO("Nodes")))), server(longB), authority(longB, onlyB()))},
		{what: "outside of the narrower", chain: under(list(only(dn(rdnO("Nodes")))), server(nameC), authority(longB, onlyB())), want: ruleNameConstraints},
		{what: "outside of the wider", chain: under(list(onlyB()), server(nameC), authority(nameB, only(dn(rdnO("Nodes"))))), want: ruleNameConstraints},
		{what: "empty intersection", chain: under(list(onlyB()), server(nameB), authority(nameB, only(nameC))), want: ruleNameConstraints},
		{what: "union of excluded", chain: under(list(not(nameC)), server(nameC), authority(nameB, not(dn(rdnO("x"))))), want: ruleNameConstraints},
		{what: "constraint of the trust anchor", chain: []certificate{server(nameC), authority(nameA, onlyB())}, want: ruleNameConstraints},
		{what: "trust anchor permits", chain: []certificate{server(nameB), authority(nameA, onlyB())}},
		{what: "own constraint does not matter", chain: []certificate{server(nameC), authority(nameB, only(nameC)), authority(nameA)}},
		{what: "no constraint on directory names", chain: under(list(constraints(permit(subtree(dns("b.example"))))), server(nameC))},
		{what: "not critical, but a constraint", chain: under(list(pkix.Extension{Id: oidNameConstraints, Value: onlyB().Value}), server(nameC)), want: ruleNameConstraints},

		// Self-issued certificates.
		{what: "self-issued authority is exempt", chain: under(list(only(nameC)), server(nameC), authority(nameB))},
		{what: "self-issued but for case", chain: under(list(only(nameC)), server(nameC), authority(printableB))},
		{what: "the leaf is not", chain: under(list(only(nameC)), server(nameB), authority(nameB)), want: ruleNameConstraints},

		// Constraints that crypto/x509 enforces, other than those on directory
		// names.
		{what: "DNS name permitted", chain: under(list(form(dns("b.example"))), server(nameB, altNames(false, dns("x.b.example"))))},
		{what: "DNS name not permitted", chain: under(list(form(dns("b.example"))), server(nameB, altNames(false, dns("c.example")))), want: ruleNameConstraints},
		{what: "IP address not permitted", chain: under(list(form(tlv(0x87, []byte{10, 0, 0, 0, 255, 0, 0, 0}))), server(nameB, altNames(false, tlv(0x87, []byte{192, 168, 0, 1})))), want: ruleNameConstraints},
		{what: "e-mail address not permitted", chain: under(list(form(tlv(0x81, []byte("b.example")))), server(nameB, altNames(false, tlv(0x81, []byte("c@c.example"))))), want: ruleNameConstraints},
		{what: "URI not permitted", chain: under(list(form(tlv(0x86, []byte("b.example")))), server(nameB, altNames(false, tlv(0x86, []byte("http://c.example"))))), want: ruleNameConstraints},
		{what: "e-mail address in a subdomain", chain: under(list(form(tlv(0x81, []byte("b.example")))), server(nameB, altNames(false, tlv(0x81, []byte("c@c.b.example"))))),
			openssl: refuses}, // crypto/x509 is less strict than RFC 5280, in which the constraint is on the host only
		{what: "URI in a subdomain", chain: under(list(form(tlv(0x86, []byte("b.example")))), server(nameB, altNames(false, tlv(0x86, []byte("http://c.b.example"))))),
			openssl: refuses}, // as above
		{what: "e-mail address in the subject", chain: under(list(form(tlv(0x81, []byte("c.example")))), server(email)), want: ruleNameConstraints},
		{what: "permitted e-mail address in the subject", chain: under(list(form(tlv(0x81, []byte("b.example")))), server(email)), want: ruleNameConstraints,
			openssl: accepts}, // OpenSSL applies the constraint; here the combination is refused
		{what: "excluded e-mail address in the subject", chain: under(list(constraints(exclude(subtree(tlv(0x81, []byte("b.example")))))), server(email)), want: ruleNameConstraints},

		// Name forms and distances that neither program enforces. OpenSSL refuses a
		// chain only if it has a name of the form.
		{what: "otherName", chain: under(list(form(tlv(0xa0, []byte{0x06, 1, 42}, tlv(0xa0, tlv(0x0c))))), server(nameB)), want: ruleNameConstraints, openssl: accepts},
		{what: "x400Address", chain: under(list(form(tlv(0xa3, tlv(0x30)))), server(nameB)), want: ruleNameConstraints, openssl: notCompared},
		{what: "ediPartyName", chain: under(list(form(tlv(0xa5, tlv(0xa1, tlv(0x0c))))), server(nameB)), want: ruleNameConstraints, openssl: notCompared},
		{what: "registeredID", chain: under(list(form(tlv(0x88, []byte{42}))), server(nameB)), want: ruleNameConstraints, openssl: accepts},
		{what: "minimum 0", chain: under(list(constraints(permit(subtree(dirName(nameB), tlv(0x80, []byte{0}))))), server(nameB))},
		{what: "minimum 1", chain: under(list(constraints(permit(subtree(dirName(nameB), tlv(0x80, []byte{1}))))), server(nameB)), want: ruleNameConstraints},
		{what: "maximum", chain: under(list(constraints(permit(subtree(dirName(nameB), tlv(0x81, []byte{9}))))), server(nameB)), want: ruleNameConstraints},
		{what: "excluded with a maximum", chain: under(list(constraints(exclude(subtree(dirName(nameC), tlv(0x81, []byte{0}))))), server(nameC)), want: ruleNameConstraints},
		{what: "DNS name with a minimum", chain: under(list(constraints(permit(subtree(dns("b.example"), tlv(0x80, []byte{1}))))), server(nameB, altNames(false, dns("b.example")))), want: ruleNameConstraints},
		{what: "empty extension", chain: under(list(constraints()), server(nameB)), want: errParse, openssl: accepts},
		{what: "empty permitted subtrees", chain: under(list(constraints(permit())), server(nameB)), want: errParse, openssl: accepts},
		{what: "empty permitted subtrees beside excluded", chain: under(list(constraints(permit(), exclude(subtree(dirName(nameC))))), server(nameB)), want: ruleNameConstraints, openssl: accepts},
		{what: "trailing data", chain: under(list(pkix.Extension{Id: oidNameConstraints, Critical: true, Value: append(onlyB().Value, 0)}), server(nameB)), want: errParse, openssl: notCompared},
		{what: "implicitly tagged name", chain: under(list(constraints(permit(subtree(tlv(0xa4, rdnO("Nodes")))))), server(nameB)), want: ruleNameConstraints},
		{what: "primitive directoryName", chain: under(list(constraints(permit(subtree(tlv(0x84, nameB))))), server(nameB)), want: ruleNameConstraints},
		{what: "two extensions", chain: under(list(onlyB(), only(dn())), server(nameC)), want: errParse},
		{what: "constraints not understood in a leaf", chain: under(list(onlyB()), server(nameB, form(tlv(0x88, []byte{42})))), want: ruleNameConstraints, openssl: accepts},

		// The other rules of X.509.
		{what: "leaf is over", chain: under(nil, with(server(nameB), over)), want: RuleDates},
		{what: "leaf is early", chain: under(nil, with(server(nameB), early)), want: RuleDates},
		{what: "intermediate is over", chain: []certificate{server(nameB), with(authority(nameB), over), authority(nameA)}, want: RuleDates},
		{what: "root is over", chain: []certificate{server(nameB), authority(nameB), with(authority(nameA), over)}, want: RuleDates},
		{what: "intermediate is no authority", chain: []certificate{server(nameB), server(nameB), authority(nameA)}, want: ruleCA},
		{what: "no basicConstraints", chain: []certificate{server(nameB), {subject: nameB, extensions: list(keyUsageCA())}, authority(nameA)}, want: ruleCA},
		{what: "intermediate must not sign certificates", chain: []certificate{server(nameB), {subject: nameB, extensions: list(caAnyDepth(), keyUsageServer())}, authority(nameA)}, want: ruleCA},
		{what: "keyUsage of nothing", chain: []certificate{server(nameB), {subject: nameB, extensions: list(caAnyDepth(), keyUsage(0))}, authority(nameA)}, want: ruleCA},
		{what: "root must not sign certificates", chain: []certificate{server(nameB), {subject: nameA, extensions: list(caAnyDepth(), keyUsageServer())}}, want: ruleCA},
		{what: "no keyUsage", chain: []certificate{server(nameB), {subject: nameB, extensions: list(caAnyDepth())}, authority(nameA)}},
		{what: "pathlen 0", chain: []certificate{server(nameC), authority(nameC), {subject: nameB, extensions: list(basicConstraintsCA(0), keyUsageCA())}, authority(nameA)}, want: rulePathLen},
		{what: "pathlen 0 of the root", chain: []certificate{server(nameC), authority(nameB), {subject: nameA, extensions: list(basicConstraintsCA(0), keyUsageCA())}}, want: rulePathLen},
		{what: "pathlen 0, self-issued below", chain: []certificate{server(nameC), authority(nameB), {subject: nameB, extensions: list(basicConstraintsCA(0), keyUsageCA())}, authority(nameA)}, want: rulePathLen,
			openssl: accepts}, // RFC 5280 does not count the self-issued certificate, but crypto/x509 does
		{what: "critical extension in the leaf", chain: under(nil, server(nameB, unknownCritical())), want: ruleCriticalExtension},
		{what: "critical extension above", chain: under(list(unknownCritical()), server(nameB)), want: ruleCriticalExtension},
		{what: "critical extension beside constraints", chain: under(list(onlyB(), unknownCritical()), server(nameB)), want: ruleCriticalExtension},
		{what: "critical subjectAltName of otherName", chain: under(nil, server(nameB, altNames(true, tlv(0xa0, []byte{0x06, 1, 42}, tlv(0xa0, tlv(0x0c)))))), want: ruleCriticalExtension,
			openssl: accepts}, // OpenSSL treats the extension as processed
		{what: "malformed subjectAltName", chain: under(nil, server(nameB, altNames(false, tlv(0x84, nameC)))), want: ruleFormat, openssl: notCompared},
		{what: "extended usage", chain: under(nil, server(nameB, serverAuthOnly())), usage: x509.ExtKeyUsageServerAuth},
		{what: "other extended usage", chain: under(nil, server(nameB, serverAuthOnly())), usage: x509.ExtKeyUsageClientAuth, want: ruleKeyUsage},
		{what: "extended usage of an authority", chain: under(list(clientAuthOnly()), server(nameB)), usage: x509.ExtKeyUsageServerAuth, want: ruleKeyUsage},
		{what: "signed with another key", chain: under(nil, with(server(nameB), func(c *certificate) { c.signer = ecKey(7) })), want: ruleIssuer},
		{what: "in another issuer's name", chain: under(nil, with(server(nameB), func(c *certificate) { c.issuer = nameC })), want: ruleIssuer},
		{what: "issuer's name in other letters", chain: under(nil, with(server(nameB), func(c *certificate) { c.issuer = printableB })), want: ruleIssuer,
			openssl: accepts}, // crypto/x509 requires the same bytes
		{what: "RSA key out of bounds", chain: under(nil, with(server(nameB), func(c *certificate) {
			c.pub = &rsa.PublicKey{N: new(big.Int).Add(new(big.Int).Lsh(big.NewInt(1), maxRSABits), big.NewInt(1)), E: 65537}
		})), want: ruleKey, openssl: notCompared},
	}
}

// issue makes the certificates of a case, each with its own key.
func (c verifyCase) issue(t *testing.T) [][]byte {
	ders := make([][]byte, len(c.chain))
	for i, cert := range c.chain {
		above := min(i+1, len(c.chain)-1)
		if cert.key == nil {
			cert.key = ecKey(i)
		}
		if cert.signer == nil {
			cert.signer = ecKey(above)
		}
		if cert.issuer == nil {
			cert.issuer = c.chain[above].subject
		}
		cert.serial = int64(i + 1)
		// Without key identifiers OpenSSL treats every self-issued certificate as a
		// self-signed one.
		ski, err := subjectKeyID(cert.key.Public())
		check(t, err)
		aki, err := authorityKeyID(ecKey(above).Public())
		check(t, err)
		cert.extensions = append([]pkix.Extension{ski, aki}, cert.extensions...)
		ders[i] = cert.der(t)
	}
	return ders
}

// verify returns the result of this package for the case.
func (c verifyCase) verify(ders [][]byte) error {
	certs := make([]*x509.Certificate, len(ders))
	for i, der := range ders {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return fmt.Errorf("%w: %w", errParse, err)
		}
		certs[i] = cert
	}
	last := len(certs) - 1
	o := VerifyOptions{Trusted: certs[last:], Untrusted: certs[1:last], Time: testNow}
	if c.usage != 0 {
		o.KeyUsages = []x509.ExtKeyUsage{c.usage}
	}
	chain, err := Verify(certs[0], o)
	if err == nil && !slices.Equal(chain, certs) {
		return fmt.Errorf("another chain than the one given: %d certificates", len(chain))
	}
	return err
}

// Verify refuses every chain that a constraint of one of its certificates or a rule
// of X.509 forbids, and accepts all others. OpenSSL verifies every chain as well;
// where its result differs, the table has the reason.
func TestVerify(t *testing.T) {
	for _, c := range verifyCases() {
		t.Run(c.what, func(t *testing.T) {
			ders := c.issue(t)
			err := c.verify(ders)
			if !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			var refused *VerifyError
			if err != nil && !errors.Is(err, errParse) && (!errors.As(err, &refused) || refused.Cert == nil) {
				t.Errorf("%v: not a VerifyError about a certificate", err)
			}
			if c.openssl == notCompared {
				return
			}
			out, ok := opensslVerify(t, ders, c.usage)
			want := err == nil
			if c.openssl != agrees {
				want = !want
			}
			if ok != want {
				t.Errorf("Verify: error %v; OpenSSL accepts: %v, want %v:\n%s", err, ok, want, out)
			}
		})
	}
}

func opensslVerify(t *testing.T, ders [][]byte, usage x509.ExtKeyUsage) (string, bool) {
	t.Helper()
	dir := t.TempDir()
	last := len(ders) - 1
	writeFile(t, dir, "leaf.pem", certPEM(ders[0]))
	writeFile(t, dir, "root.pem", certPEM(ders[last]))
	args := []string{"verify", "-attime", fmt.Sprint(testNow.Unix()), "-trusted", "root.pem"}
	if last > 1 {
		writeFile(t, dir, "between.pem", certPEM(ders[1:last]...))
		args = append(args, "-untrusted", "between.pem")
	}
	switch usage {
	case x509.ExtKeyUsageServerAuth:
		args = append(args, "-purpose", "sslserver")
	case x509.ExtKeyUsageClientAuth:
		args = append(args, "-purpose", "sslclient")
	}
	return openssl(t, dir, append(args, "leaf.pem")...)
}

// Verify finds a valid chain beside an invalid one: of two certificates for the same
// name and key, it uses the one whose constraint permits the leaf.
func TestVerifyFindsTheGoodChain(t *testing.T) {
	parse := func(c certificate) *x509.Certificate {
		cert, err := x509.ParseCertificate(c.der(t))
		check(t, err)
		return cert
	}
	root := parse(certificate{subject: nameA, issuer: nameA, key: ecKey(0), extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}})
	between := func(constraint pkix.Extension, serial int64) *x509.Certificate {
		return parse(certificate{subject: nameB, issuer: nameA, key: ecKey(1), signer: ecKey(0), serial: serial,
			extensions: []pkix.Extension{caAnyDepth(), keyUsageCA(), constraint}})
	}
	bad, good := between(constraints(permit(subtree(dirName(nameC)))), 2), between(onlyB(), 3)
	leaf := parse(certificate{subject: nameB, issuer: nameB, key: ecKey(2), signer: ecKey(1), serial: 4})
	for _, untrusted := range [][]*x509.Certificate{{bad, good}, {good, bad}, {good, good, leaf}} {
		chain, err := Verify(leaf, VerifyOptions{Trusted: []*x509.Certificate{root}, Untrusted: untrusted, Time: testNow})
		if err != nil || len(chain) != 3 || chain[1] != good {
			t.Errorf("got %v, %v", chain, err)
		}
	}
	if _, err := Verify(leaf, VerifyOptions{Trusted: []*x509.Certificate{root}, Untrusted: []*x509.Certificate{bad}, Time: testNow}); !errors.Is(err, ruleNameConstraints) {
		t.Errorf("got %v, want %v", err, ruleNameConstraints)
	}
	if chain, err := Verify(leaf, VerifyOptions{Trusted: []*x509.Certificate{good}, Time: testNow}); err != nil || len(chain) != 2 {
		t.Errorf("a trusted intermediate: got %v, %v", chain, err)
	}
	if _, err := Verify(leaf, VerifyOptions{Untrusted: []*x509.Certificate{good, root}, Time: testNow}); !errors.Is(err, ruleIssuer) {
		t.Errorf("nothing trusted: got %v, want %v", err, ruleIssuer)
	}
}

// The error names the rule that is broken and the certificate that breaks it, also if
// there are other certificates that do not lead to the root.
func TestVerifyNamesTheBrokenRule(t *testing.T) {
	parse := func(c certificate) *x509.Certificate {
		cert, err := x509.ParseCertificate(c.der(t))
		check(t, err)
		return cert
	}
	root := parse(certificate{subject: nameA, issuer: nameA, key: ecKey(0), extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}})
	stray := parse(certificate{subject: nameB, issuer: nameC, key: ecKey(1), signer: ecKey(4), extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}})
	leaf := parse(certificate{subject: nameB, issuer: nameB, key: ecKey(2), signer: ecKey(1)})
	for want, broken := range map[Rule]certificate{
		RuleDates:             {to: testNow.Add(-time.Second), extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}},
		ruleCA:                {extensions: []pkix.Extension{caAnyDepth(), keyUsageServer()}},
		ruleCriticalExtension: {extensions: []pkix.Extension{caAnyDepth(), keyUsageCA(), unknownCritical()}},
	} {
		broken.subject, broken.issuer, broken.key, broken.signer = nameB, nameA, ecKey(1), ecKey(0)
		between := parse(broken)
		for _, untrusted := range [][]*x509.Certificate{{between, stray}, {between}} {
			_, err := Verify(leaf, VerifyOptions{Trusted: []*x509.Certificate{root}, Untrusted: untrusted, Time: testNow})
			var refused *VerifyError
			if !errors.As(err, &refused) || refused.Rule != want || refused.Cert != between {
				t.Errorf("%d shown: got %v, want %v", len(untrusted), err, want)
			}
		}
	}
}

// Verify does not change the given certificates: their critical extensions remain
// unhandled for other verifications.
func TestVerifyLeavesCertificatesAlone(t *testing.T) {
	ders := verifyCase{chain: under([]pkix.Extension{onlyB()}, server(nameB))}.issue(t)
	var certs []*x509.Certificate
	for _, der := range ders {
		cert, err := x509.ParseCertificate(der)
		check(t, err)
		certs = append(certs, cert)
	}
	chain, err := Verify(certs[0], VerifyOptions{Trusted: certs[2:], Untrusted: certs[1:2], Time: testNow})
	check(t, err)
	if chain[1] != certs[1] || len(certs[1].UnhandledCriticalExtensions) != 1 {
		t.Errorf("got the given certificate: %v, unhandled extensions: %v, want true and one extension", chain[1] == certs[1], certs[1].UnhandledCriticalExtensions)
	}
}

// The cost of verifying a chain is bounded: numbers and sizes are checked before
// signatures, and the worst permitted chain takes little time.
func TestVerifyLimits(t *testing.T) {
	parse := func(c certificate) *x509.Certificate {
		cert, err := x509.ParseCertificate(c.der(t))
		check(t, err)
		return cert
	}
	root := parse(certificate{subject: nameA, issuer: nameA, key: ecKey(0), extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}})
	many := func(n int, name []byte) (subtrees, names [][]byte) {
		for range n {
			subtrees = append(subtrees, subtree(dirName(name)))
			names = append(names, dirName(name))
		}
		return subtrees, names
	}
	leaf := func(ext ...pkix.Extension) *x509.Certificate {
		return parse(certificate{subject: nameB, issuer: nameA, key: ecKey(1), signer: ecKey(0), serial: 7, extensions: ext})
	}
	var copies []*x509.Certificate
	for i := range int64(maxCertificates) {
		copies = append(copies, parse(certificate{subject: nameB, issuer: nameB, key: ecKey(1), serial: 50 + i}))
	}
	_, names := many(maxNames, nameC)
	half, _ := many(maxNames/2, nameC)
	// The certificates that are checked are the leaf and the root, each with its subject.
	_, most := many(maxNames-2, nameB)
	exactly := func(total int) *x509.Certificate {
		size := total - len(leaf(pkix.Extension{Id: oidNetscapeComment, Value: make([]byte, maxChainBytes-1000)}).Raw) + maxChainBytes - 1000
		for { // ECDSA signatures are not all of the same length
			if cert := leaf(pkix.Extension{Id: oidNetscapeComment, Value: make([]byte, size)}); len(cert.Raw) == total {
				return cert
			}
		}
	}
	for _, tt := range []struct {
		what      string
		leaf      *x509.Certificate
		untrusted []*x509.Certificate
		want      error
	}{
		{"as many as allowed", leaf(), copies[1:], nil},
		{"one too many", leaf(), copies, ruleLimit},
		{"as large as allowed", exactly(maxChainBytes), nil, nil},
		{"one byte too large", exactly(maxChainBytes + 1), nil, ruleLimit},
		{"as many names as allowed", leaf(altNames(false, most...)), nil, nil},
		{"one name too many", leaf(altNames(false, append(most, dirName(nameB))...)), nil, ruleLimit},
		{"too many subtrees, of both kinds", leaf(constraints(permit(half...), exclude(half...))), nil, ruleLimit},
		{"too large", leaf(pkix.Extension{Id: oidNetscapeComment, Value: make([]byte, maxChainBytes)}), nil, ruleLimit},
		{"too many names", leaf(altNames(false, names...)), nil, ruleLimit},
	} {
		if _, err := Verify(tt.leaf, VerifyOptions{Trusted: []*x509.Certificate{root}, Untrusted: tt.untrusted, Time: testNow}); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, err, tt.want)
		}
	}

	// Eight authorities that certify each other, with the maximum number of names
	// and subtrees: crypto/x509 stops after 100 signatures.
	var mesh []*x509.Certificate
	subtrees, names := many((maxNames-40)/2/8, nameB)
	for i := range int64(8) {
		mesh = append(mesh, parse(certificate{subject: nameA, issuer: nameA, key: ecKey(int(i)%4 + 1), signer: ecKey(int(i) / 4), serial: 60 + i,
			extensions: []pkix.Extension{caAnyDepth(), keyUsageCA(), constraints(exclude(subtrees...)), altNames(false, names...)}}))
	}
	start := costtest.Spent()
	_, err := Verify(leaf(), VerifyOptions{Trusted: []*x509.Certificate{root}, Untrusted: mesh, Time: testNow})
	if took := costtest.Spent() - start; took > 2*time.Second {
		t.Errorf("Verify took %v, error %v, want at most 2s", took, err)
	}
}

// The text of an error names the certificate's owner, the broken rule, the detail
// and the cause, and errors.Is finds the rule and the cause.
func TestVerifyError(t *testing.T) {
	node := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	cause := errors.New("the cause")
	err := error(&VerifyError{Rule: RuleDates, Cert: node.Cert, Detail: "the detail", Err: cause})
	if !errors.Is(err, RuleDates) || !errors.Is(err, cause) || errors.Is(err, ruleCA) {
		t.Errorf("errors.Is has wrong results for: %v", err)
	}
	for _, want := range []string{"accounting-authority 1234abcd", string(RuleDates), "the detail", "the cause"} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q is not in %q", want, err)
		}
	}
	other := &VerifyError{Rule: RuleDates, Cert: &x509.Certificate{RawSubject: nameB}}
	if got, want := other.Error(), `certificate of O="Nodes",OU="B",2.5.4.3="1" refused: `+string(RuleDates); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got := RuleDates.Error(); got != string(RuleDates) {
		t.Errorf("got %q", got)
	}
	if got := (&VerifyError{Rule: ruleFormat, Err: errors.New(strings.Repeat("x", 10000))}).Error(); len(got) > 500 {
		t.Errorf("%d characters", len(got))
	}
	for _, err := range []error{&VerifyError{Rule: ruleLimit}, &VerifyError{Rule: ruleLimit, Cert: &x509.Certificate{}}, &VerifyError{Rule: ruleLimit, Cert: &x509.Certificate{RawSubject: nameB}}} {
		if !errors.Is(err, ruleLimit) || !strings.Contains(err.Error(), string(ruleLimit)) {
			t.Errorf("got %v", err)
		}
	}
}
