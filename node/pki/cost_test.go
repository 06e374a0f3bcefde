package pki

import (
	"bytes"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"slices"
	"strings"
	"testing"

	"peerlink/internal/costtest"

	cbasn1 "golang.org/x/crypto/cryptobyte/asn1"
)

// fill repeats DER up to nearly the permitted size.
func fill(der []byte) []byte {
	return bytes.Repeat(der, (maxChainBytes-4000)/len(der))
}

// Parsing and verifying any certificates, requests and keys of the permitted size
// allocates at most 32 MiB in total, and takes at most half a second. (The cost of
// opening an encrypted key is chosen by its owner, within the bounds of ErrKeyCost, and
// the passphrase is entered before.)
func TestCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	p := newPeers(t)
	ca := p.ca.Cert.RawSubject
	slow := costtest.NewSlowKey(t, maxRSABits, maxRSAExponent)
	host := func(i int) []byte { return tlv(0x82, fmt.Appendf(nil, "%d.example.com", i)) }
	many := func(n int, f func(i int) []byte) (all [][]byte) {
		for i := range n {
			all = append(all, f(i))
		}
		return all
	}
	extension := func(oid asn1.ObjectIdentifier, value []byte) []pkix.Extension {
		return []pkix.Extension{{Id: oid, Value: value}}
	}
	var unknown []pkix.Extension
	for i := range 4000 {
		unknown = append(unknown, pkix.Extension{Id: asn1.ObjectIdentifier{1, 2, 3, i}, Value: []byte{5, 0}})
	}
	deep := []byte{5, 0}
	for range 10_000 {
		deep = tlv(0x30, deep)
		if len(deep) > 50_000 {
			break
		}
	}
	wide := dn(many(maxRDNs, func(i int) []byte {
		return tlv(0x31, many(maxAttributes, func(j int) []byte {
			return ava(asn1.ObjectIdentifier{1, 2, i, j}, cbasn1.UTF8String, "x")
		})...)
	})...)
	certs := map[string]certificate{
		"unknown extensions": {extensions: unknown},
		"deep extension":     {extensions: extension(asn1.ObjectIdentifier{1, 2, 3}, deep)},
		"host names":         {extensions: []pkix.Extension{altNames(false, many(2500, host)...)}},
		"directory names":    {extensions: []pkix.Extension{altNames(false, fill(dirName(dn(rdnCN("x")))))}},
		"empty names":        {extensions: []pkix.Extension{altNames(false, fill(dirName(dn())))}},
		"wide names":         {extensions: []pkix.Extension{altNames(false, fill(dirName(wide)))}},
		"constraints":        {extensions: []pkix.Extension{constraints(permit(fill(subtree(dirName(dn(rdnCN("x")))))))}},
		"host constraints":   {extensions: []pkix.Extension{constraints(permit(many(2000, func(i int) []byte { return subtree(host(i)) })...))}},
		"names and constraints": {extensions: []pkix.Extension{
			altNames(false, many(maxNames/2-10, host)...), constraints(permit(many(maxNames/2-10, func(i int) []byte { return subtree(host(i)) })...))}},
		"wide subject":        {subject: wide},
		"long subject":        {subject: dn(fill(rdnCN("x")))},
		"long attribute":      {subject: dn(tlv(0x31, ava(oidCommonName, cbasn1.UTF8String, strings.Repeat("x", 50_000))))},
		"attributes":          {subject: dn(tlv(0x31, fill(ava(oidCommonName, cbasn1.UTF8String, "x"))))},
		"long type":           {subject: dn(tlv(0x31, tlv(0x30, tlv(0x06, bytes.Repeat([]byte{1}, 50_000)), tlv(0x0c, []byte("x")))))},
		"policies":            {extensions: extension(asn1.ObjectIdentifier{2, 5, 29, 32}, tlv(0x30, fill(tlv(0x30, tlv(0x06, []byte{0x2a, 3})))))},
		"usages":              {extensions: extension(oidExtKeyUsage, tlv(0x30, fill([]byte{0x06, 1, 0x2a})))},
		"distribution points": {extensions: extension(asn1.ObjectIdentifier{2, 5, 29, 31}, tlv(0x30, fill(tlv(0x30, tlv(0xa0, tlv(0xa0, tlv(0x86, []byte("x"))))))))},
	}
	cost := func(name string, shown [][]byte) {
		t.Helper()
		shown = append(shown, p.peerCA.Raw)
		costtest.Check(t, name+" as a client", func() { _, _, _ = VerifyClient(shown, p.aa.Cert, testNow) })
		costtest.Check(t, name+" as a server", func() { _, _ = VerifyServer(shown, p.ca.Cert, p.ca.id, testNow) })
		file := certPEM(shown[0])
		costtest.Check(t, name+" as a root", func() {
			if cert, err := ParseCertificatePEM(file); err == nil {
				_, _ = CheckRoot(cert, testNow)
				_, _ = CheckPeer(cert, p.aa.Cert, p.ca.Cert, testNow)
				_ = (&VerifyError{Cert: cert}).Error()
			}
		})
	}
	for name, c := range certs {
		c.issuer, c.key, c.signer = ca, ecKey(3), ecKey(1)
		if c.subject == nil {
			c.subject = ca
		}
		der := c.der(t)
		if len(der) > maxChainBytes {
			der = der[:maxChainBytes]
		}
		cost(name, [][]byte{der})
	}
	modulus := new(big.Int).SetBit(big.NewInt(1), 8*60_000, 1)
	huge := slices.Concat(tlv(0x30, tlv(0x30, tlv(0x06, []byte{0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1}), []byte{5, 0}),
		tlv(0x03, []byte{0}, tlv(0x30, tlv(0x02, modulus.Bytes()), tlv(0x02, []byte{1, 0, 1})))))
	template := certificate{subject: ca, issuer: ca, key: ecKey(3), signer: ecKey(1)}.der(t)
	plain, err := x509.ParseCertificate(template)
	check(t, err)
	tbs := bytes.Replace(plain.RawTBSCertificate, plain.RawSubjectPublicKeyInfo, huge, 1)
	tbs = tlv(0x30, tbs[4:])
	cost("a modulus of 480,000 bits", [][]byte{tlv(0x30, tbs, template[len(template)-90:])})
	cost("a slow key", [][]byte{certificate{subject: ca, issuer: ca, key: slow, signer: ecKey(1)}.der(t)})
	var slowChain [][]byte
	for i := range maxCertificates - 1 {
		slowChain = append(slowChain, certificate{subject: ca, issuer: ca, key: slow, serial: int64(100 + i),
			extensions: []pkix.Extension{caAnyDepth(), keyUsageCA(), altNames(false, host(i))}}.der(t))
	}
	cost("slow keys", slowChain)
	cost("no DER", [][]byte{bytes.Repeat([]byte{0x30, 0x80}, maxChainBytes/2)})

	for name, file := range map[string]string{
		"beginnings": strings.Repeat("-----BEGIN ", maxFile/11),
		"ends":       strings.Repeat("-----END ", maxFile/9),
		"blocks":     strings.Repeat("-----BEGIN A-----\n-----END A-----\n", maxFile/35),
		"keys":       strings.Repeat("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n", maxFile/54),
		"headers":    "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("a: b\n", maxFile/5-20) + "\n-----END PRIVATE KEY-----\n",
		"base64":     "-----BEGIN PRIVATE KEY-----\n" + strings.Repeat("A", maxFile-100) + "\n-----END PRIVATE KEY-----\n",
		"lines":      strings.Repeat("\n", maxFile),
		"too long":   strings.Repeat("-----BEGIN A", 1<<20),
		"a deep key": string(pem.EncodeToMemory(&pem.Block{Type: pemPKCS8Key, Bytes: bytes.Repeat([]byte{0x30, 0x80}, maxKeyDER/2)})),
	} {
		data := []byte(file)
		costtest.Check(t, name+" as a key", func() {
			_, err = DecodeKey(data, func() ([]byte, error) { return nil, errors.New("asked") })
		})
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
		costtest.Check(t, name+" as a request", func() { _, _ = ParseCSRPEM(data) })
		costtest.Check(t, name+" as a certificate", func() { _, _ = ParseCertificatePEM(data) })
	}
}
