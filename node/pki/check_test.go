package pki

import (
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// CheckRoot accepts the root certificate of an unknown node only if a node of that
// name could have made it.
func TestCheckRoot(t *testing.T) {
	node := newNode(t, nodetype.CreditorsAgent, "", ecKey(0))
	if id, err := CheckRoot(node.Cert, testNow); err != nil || id != node.id {
		t.Errorf("got %v, %v", id, err)
	}
	name := node.Cert.RawSubject
	ca := []pkix.Extension{basicConstraintsCA(1), keyUsageCA()}
	uncritical := basicConstraintsCA(1)
	uncritical.Critical = false
	for _, tt := range []struct {
		what string
		cert certificate
		want Rule
	}{
		{"fine", certificate{}, ""},
		{"no path length", certificate{extensions: []pkix.Extension{caAnyDepth(), keyUsageCA()}}, ""},
		{"pathlen 0", certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA()}}, rulePathLen},
		{"no authority", certificate{extensions: []pkix.Extension{basicConstraintsLeaf(), keyUsageCA()}}, ruleCA},
		{"basicConstraints not critical", certificate{extensions: []pkix.Extension{uncritical, keyUsageCA()}}, ruleCA},
		{"no basicConstraints", certificate{extensions: []pkix.Extension{keyUsageCA()}}, ruleCA},
		{"no keyUsage", certificate{extensions: []pkix.Extension{basicConstraintsCA(1)}}, ruleCA},
		{"keyUsage of a server", certificate{extensions: []pkix.Extension{basicConstraintsCA(1), keyUsageServer()}}, ruleCA},
		{"unknown critical extension", certificate{extensions: append(ca[:2:2], unknownCritical())}, ruleCriticalExtension},
		{"over", certificate{to: testNow.Add(-time.Second)}, RuleDates},
		{"not yet", certificate{from: testNow.Add(time.Second)}, RuleDates},
		{"other issuer", certificate{issuer: dn(rdnO("x"))}, ruleIssuer},
		{"signed with another key", certificate{signer: ecKey(1)}, ruleIssuer},
		{"not a node", certificate{subject: dn(rdnO("x")), issuer: dn(rdnO("x"))}, ruleSubject},
		{"other key", certificate{key: ecKey(1)}, ruleSubject},
		{"weak key", certificate{key: weakRSA()}, ruleKey},
	} {
		c := tt.cert
		if c.subject == nil {
			c.subject = name
		}
		if c.issuer == nil {
			c.issuer = c.subject
		}
		if c.key == nil {
			c.key = ecKey(0)
		}
		if c.extensions == nil {
			c.extensions = ca
		}
		cert, err := x509.ParseCertificate(c.der(t))
		check(t, err)
		_, err = CheckRoot(cert, testNow)
		if tt.want == "" && err != nil || tt.want != "" && !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, err, tt.want)
		}
	}
}

// CheckPeer accepts only peer certificates that can be used: for this node, from a
// known peer, permitted to sign server certificates, and with the subnet that this
// node gets.
func TestCheckPeer(t *testing.T) {
	aa := newNode(t, nodetype.AccountingAuthority, "1234abcd", ecKey(0))
	ca := newNode(t, nodetype.CreditorsAgent, "", ecKey(1))
	da := newNode(t, nodetype.DebtorsAgent, "", ecKey(2))
	subnet := func(s string) pkix.Extension {
		ext, err := netscapeComment(s)
		check(t, err)
		return ext
	}
	nc := constraints(permit(subtree(dirName(ca.Cert.RawSubject))))
	for _, tt := range []struct {
		what      string
		cert      certificate
		from, own testNode
		want      error
		subnet    string
	}{
		{what: "fine", subnet: "00000a"},
		{what: "both extended usages", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), extKeyUsageServer(), nc, subnet("Subnet: 00000b")}}, subnet: "00000b"},
		{what: "no subnet", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), nc}}, want: errSubnet},
		{what: "empty comment", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), nc, subnet("")}}, want: errSubnet},
		{what: "subnet of 8 digits", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), nc, subnet("Subnet: 1234abcd")}}, want: errSubnet},
		{what: "no name constraint", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), subnet("Subnet: 00000a")}}, want: ruleNameConstraints},
		{what: "another node's constraint", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), constraints(permit(subtree(dirName(da.Cert.RawSubject)))), subnet("Subnet: 00000a")}}, want: ruleNameConstraints},
		{what: "not for clients", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), serverAuthOnly(), nc, subnet("Subnet: 00000a")}}, want: ruleKeyUsage},
		{what: "no authority", cert: certificate{extensions: []pkix.Extension{basicConstraintsLeaf(), keyUsageCA(), nc}}, want: ruleCA},
		{what: "keyUsage of a server", cert: certificate{extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageServer(), nc}}, want: ruleCA},
		{what: "just long enough", cert: certificate{to: testNow.AddDate(500, 0, 0)}, subnet: "00000a"},
		{what: "too short", cert: certificate{to: testNow.AddDate(499, 0, 0)}, want: RuleDates},
		{what: "not yet valid", cert: certificate{from: testNow.Add(time.Hour)}, want: RuleDates},
		{what: "other key", cert: certificate{key: ecKey(3), signer: ecKey(0)}, want: ruleSubject},
		{what: "other subject", cert: certificate{subject: da.Cert.RawSubject}, want: ruleSubject},
		{what: "other issuer", from: newNode(t, nodetype.AccountingAuthority, "00000001", ecKey(0)), want: ruleIssuer},
		{what: "signed with another key", cert: certificate{signer: ecKey(3)}, want: ruleIssuer},
		{what: "for another node", own: da, want: ruleSubject},
	} {
		c := tt.cert
		c.issuer = aa.Cert.RawSubject
		if c.subject == nil {
			c.subject = ca.Cert.RawSubject
		}
		if c.key == nil {
			c.key = ecKey(1)
		}
		if c.signer == nil {
			c.signer = ecKey(0)
		}
		if c.to.IsZero() {
			c.to = testNow.AddDate(900, 0, 0)
		}
		if c.extensions == nil {
			c.extensions = []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), nc, subnet("Subnet: 00000a")}
		}
		from, own := tt.from, tt.own
		if from.Cert == nil {
			from = aa
		}
		if own.Cert == nil {
			own = ca
		}
		cert, err := x509.ParseCertificate(c.der(t))
		check(t, err)
		got, err := CheckPeer(cert, from.Cert, own.Cert, testNow)
		if !errors.Is(err, tt.want) || got != tt.subnet && err == nil {
			t.Errorf("%s: got %q, %v, want %q, %v", tt.what, got, err, tt.subnet, tt.want)
		}
	}
	// The comment in a certificate that an agent has issued is ignored.
	c := certificate{subject: aa.Cert.RawSubject, issuer: ca.Cert.RawSubject, key: ecKey(0), signer: ecKey(1), to: testNow.AddDate(900, 0, 0),
		extensions: []pkix.Extension{basicConstraintsCA(0), keyUsageCA(), constraints(permit(subtree(dirName(aa.Cert.RawSubject)))), subnet("")}}
	cert, err := x509.ParseCertificate(c.der(t))
	check(t, err)
	if got, err := CheckPeer(cert, ca.Cert, aa.Cert, testNow); err != nil || got != "" {
		t.Errorf("empty comment of an agent: got %q, %v", got, err)
	}
}
