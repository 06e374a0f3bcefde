package check_test

import (
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"math/big"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// breakage is a change of a healthy directory, with the expected findings.
type breakage struct {
	name  string
	kind  nodetype.Type
	do    func(f *fixture)
	worst check.Severity // of all findings
	rules []check.Rule   // of all findings
}

type breakages []breakage

func (b *breakages) problem(name string, kind nodetype.Type, do func(f *fixture), rules ...check.Rule) {
	*b = append(*b, breakage{name, kind, do, check.Problem, rules})
}

func (b *breakages) warning(name string, kind nodetype.Type, do func(f *fixture), rules ...check.Rule) {
	*b = append(*b, breakage{name, kind, do, check.Warning, rules})
}

func (b *breakages) note(name string, kind nodetype.Type, do func(f *fixture), rules ...check.Rule) {
	*b = append(*b, breakage{name, kind, do, check.Note, rules})
}

// Each change of a healthy directory leads to exactly the expected findings: a
// report with false alarms is not read. Every rule has a case.
func TestRules(t *testing.T) {
	w := newWorld(t)
	var all breakages
	all.identity(w)
	all.roots(w)
	all.servers(w)
	all.peerCertificates(w)
	all.records(w)
	all.subnets(w)
	all.peers(w)
	all.secrets(w)
	// This rule is about files that are named in the options: see TestServerFiles.
	covered := map[check.Rule]bool{check.RuleServerKey: true}
	for _, b := range all {
		for _, rule := range b.rules {
			covered[rule] = true
		}
		t.Run(b.name, func(t *testing.T) {
			t.Parallel()
			f := w.copy(t, b.kind)
			b.do(f)
			r := f.check(check.Options{})
			slices.Sort(b.rules)
			if got := rules(r, check.Note); !slices.Equal(got, b.rules) {
				t.Errorf("rules %v, want %v:%s", got, b.rules, list(r))
			}
			if len(r.Findings) > 0 && r.Findings[0].Severity != b.worst {
				t.Errorf("worst severity is %v, want %v:%s", r.Findings[0].Severity, b.worst, list(r))
			}
			if r.OK() != (b.worst < check.Problem) {
				t.Errorf("OK is %v:%s", r.OK(), list(r))
			}
		})
	}
	for _, rule := range allRules(t) {
		if !covered[rule] {
			t.Errorf("no case breaks the rule %s", rule)
		}
	}
}

// allRules reads the rules from the source, so that none is forgotten.
func allRules(t *testing.T) (all []check.Rule) {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "rule.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			s, err := strconv.Unquote(v.Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, check.Rule(s))
		}
		return true
	})
	distinct := slices.Compact(slices.Sorted(slices.Values(all)))
	if len(all) < 50 || len(distinct) != len(all) {
		t.Errorf("%d rules, of which %d are distinct", len(all), len(distinct))
	}
	return all
}

func (b *breakages) identity(w *world) {
	b.problem("no db/nodetype", ca, func(f *fixture) { f.remove("db/nodetype") }, check.RuleNodeType)
	b.problem("db/nodetype of an unknown type", ca, func(f *fixture) { f.write("db/nodetype", "Shops\n") }, check.RuleNodeType)
	b.problem("db/nodetype of another type", ca, func(f *fixture) { f.write("db/nodetype", "Debtors Agents\n") }, check.RuleNodeType)
	b.problem("no db/nodeid", aa, func(f *fixture) { f.remove("db/nodeid") }, check.RuleNodeID)
	b.problem("db/nodeid of another node", aa, func(f *fixture) { f.write("db/nodeid", "00000000\n") }, check.RuleNodeID)
	b.problem("db/nodeid of two lines", aa, func(f *fixture) { f.write("db/nodeid", "1234abcd\n1234abcd\n") }, check.RuleNodeID)
	b.problem("no root-ca.crt", da, func(f *fixture) { f.remove("root-ca.crt") }, check.RuleCertMissing)
	b.problem("no root-ca.crt, and no ID", da, func(f *fixture) { f.remove("root-ca.crt"); f.write("db/nodeid", "x") }, check.RuleCertMissing, check.RuleNodeID)
	b.problem("root-ca.crt cut off", da, func(f *fixture) { f.write("root-ca.crt", f.read("root-ca.crt")[:300]) }, check.RuleCertPEM)
	b.problem("root-ca.crt with two certificates", da, func(f *fixture) { f.write("root-ca.crt", f.read("root-ca.crt")+f.read("root-ca.crt")) }, check.RuleCertPEM)
	b.problem("root-ca.crt is a folder", da, func(f *fixture) { f.remove("root-ca.crt"); f.write("root-ca.crt/x", "") }, check.RuleUnreadable)
	b.problem("db/nodeid far too large", da, func(f *fixture) { f.write("db/nodeid", strings.Repeat("x", 2<<20)) }, check.RuleUnreadable)
	b.problem("request by another key", ca, func(f *fixture) {
		der, err := pki.NewCSR(w.identity(ca), otherKey(f), pki.RootCSR)
		f.must(err)
		f.write("db/root-ca.csr", string(pki.EncodeCSRPEM(der)))
	}, check.RuleCSR)
	b.problem("request file without a request", ca, func(f *fixture) { f.write("db/root-ca.csr", "hello") }, check.RuleCSR)
	b.warning("root-ca.conf of another node", ca, func(f *fixture) { f.replace("root-ca.conf", w.ids[ca], w.ids[da]) }, check.RuleConf)
	b.problem("no stomp.toml", ca, func(f *fixture) { f.remove("nodeinfo/stomp.toml") }, check.RuleStompTOML)
	b.problem("stomp.toml without servers", ca, func(f *fixture) { f.replace("nodeinfo/stomp.toml", "servers", "waiters") }, check.RuleStompTOML)
	b.warning("info-bundle from the future", ca, func(f *fixture) { f.write("nodeinfo/updated-at.txt", "2999-01-01\n") }, check.RuleUpdatedAt)
	b.note("info-bundle with an invalid date", ca, func(f *fixture) { f.write("nodeinfo/updated-at.txt", "yesterday\n") }, check.RuleUpdatedAt)
	b.problem("no db/serial", ca, func(f *fixture) { f.remove("db/serial") }, check.RuleIncomplete)
	b.warning("no db/index", ca, func(f *fixture) { f.remove("db/index") }, check.RuleIncomplete)
	b.warning("no root-ca.conf, and db/crlnumber empty", ca, func(f *fixture) { f.remove("root-ca.conf"); f.write("db/crlnumber", "") }, check.RuleIncomplete)
	b.note("a temporary file", aa, func(f *fixture) { f.write("db/.index.tmp-123", "x") }, check.RuleLeftover)
	b.note("a temporary key", aa, func(f *fixture) { f.write("private/.root-ca.key.tmp-123", "x") }, check.RuleLeftover)
	b.note("an incomplete peer", aa, func(f *fixture) { f.write("peers/.new-123/nodetype.txt", "x") }, check.RuleLeftover)
}

// printable returns the node's name as another program might encode it.
func (w *world) printable(kind nodetype.Type) []byte {
	return []byte(strings.ReplaceAll(string(w.subject(kind)), "\x0c", "\x13"))
}

func (w *world) subject(kind nodetype.Type) []byte {
	der, err := w.identity(kind).Subject()
	if err != nil {
		panic(err) // the name of one of the world's nodes
	}
	return der
}

func (w *world) identity(kind nodetype.Type) pki.Identity {
	return pki.Identity{Type: kind, ID: w.ids[kind]}
}

const day = 24 * time.Hour

func expiresIn(in time.Duration) func(*recipe) {
	return func(r *recipe) { r.NotAfter = time.Now().Add(in) }
}

func (b *breakages) roots(w *world) {
	root := func(change func(*recipe)) func(*fixture) {
		return func(f *fixture) { f.reissue("root-ca.crt", change) }
	}
	// renamed gives the root certificate another subject, and removes the
	// certificates and requests that have the old one.
	renamed := func(subject []byte, and func(*fixture)) func(*fixture) {
		return func(f *fixture) {
			f.reissue("root-ca.crt", func(r *recipe) { r.RawSubject, r.issuer = subject, subject })
			f.remove("peers/" + w.ids[aa])
			f.remove(f.serverCopy())
			f.remove("db/root-ca.csr")
			and(f)
		}
	}
	withCN := sequence(w.subject(da)[2:], []byte("\x31\x0a\x30\x08\x06\x03\x55\x04\x03\x0c\x01x"))
	otherID, err := pki.Identity{Type: da, ID: w.ids[ca]}.Subject()
	if err != nil {
		panic(err)
	}
	unknown := asn1.ObjectIdentifier{1, 2, 3, 4}

	b.problem("root: version 2", aa, root(func(r *recipe) {
		r.tbs = func(tbs []byte) []byte {
			return []byte(strings.Replace(string(tbs), "\xa0\x03\x02\x01\x02", "\xa0\x03\x02\x01\x01", 1))
		}
	}), check.RuleVersion, check.RuleBasicConstraints, check.RuleKeyUsage, check.RuleSubjectKeyID)
	b.problem("root: serial number 0", aa, root(func(r *recipe) { r.SerialNumber = new(big.Int) }), check.RuleSerial)
	b.problem("root: not signed by itself", aa, root(func(r *recipe) { r.signer = w.keys[w.ids[ca]] }), check.RuleSignature, check.RuleCopy)
	b.problem("root: issued by another node", aa, root(func(r *recipe) { r.issuer = w.printable(aa) }), check.RuleIssuer)
	b.problem("root: not begun", aa, root(func(r *recipe) { r.NotBefore = time.Now().Add(day) }), check.RuleDates)
	b.problem("root: ended", aa, root(expiresIn(-day)), check.RuleDates)
	b.warning("root: about to end", aa, root(expiresIn(59*day)), check.RuleExpiry)
	b.warning("root: ends in 400 years", aa, root(func(r *recipe) { r.NotAfter = time.Now().AddDate(400, 0, 0) }), check.RuleLifetime)
	b.problem("root: not an authority", aa, root(set(basicConstraints, notCA)), check.RuleBasicConstraints)
	b.problem("root: no basicConstraints", aa, root(drop(basicConstraints)), check.RuleBasicConstraints)
	b.problem("root: basicConstraints not critical", aa, root(flip(basicConstraints)), check.RuleBasicConstraints)
	b.problem("root: pathlen 0", aa, root(set(basicConstraints, caPathLen0)), check.RulePathLen)
	b.problem("root: keyUsage without keyCertSign", aa, root(set(keyUsage, crlSign)), check.RuleKeyUsage)
	b.problem("root: keyUsage not critical", aa, root(flip(keyUsage)), check.RuleKeyUsage)
	b.problem("root: no keyUsage", aa, root(drop(keyUsage)), check.RuleKeyUsage)
	b.problem("root: for clients only", aa, root(set(extKeyUsage, sequence(clientAuth))), check.RuleExtKeyUsage)
	b.problem("root: no subjectKeyIdentifier", aa, root(drop(subjectKeyID)), check.RuleSubjectKeyID)
	b.problem("root: subjectKeyIdentifier by another method", aa, root(set(subjectKeyID, []byte{0x04, 4, 1, 2, 3, 4})), check.RuleSubjectKeyID)
	b.problem("root: authorityKeyIdentifier of another key", aa, root(set(authorityKeyID, sequence([]byte{0x80, 4, 1, 2, 3, 4}))), check.RuleAuthorityKeyID)
	b.problem("root: unknown critical extension", aa, root(func(r *recipe) { set(unknown, []byte{5, 0})(r); flip(unknown)(r) }), check.RuleRefused)
	b.problem("root: node ID not derived", da, renamed(otherID, func(f *fixture) {
		f.write("db/nodeid", w.ids[ca]+"\n")
		f.replace("root-ca.conf", w.ids[da], w.ids[ca])
	}), check.RuleDerivedID, check.RuleCopyMissing, check.RuleCopyUnused)
	b.problem("root: a common name as well", da, renamed(withCN, func(*fixture) {}), check.RuleSubject, check.RuleCopyMissing, check.RuleCopyUnused)
	b.note("root: encoded in another way", ca, renamed(w.printable(ca), func(*fixture) {}), check.RuleNameEncoding, check.RuleCopyMissing, check.RuleCopyUnused)
}

func (b *breakages) servers(w *world) {
	server := func(change func(*recipe)) func(*fixture) {
		return func(f *fixture) { f.reissue(f.serverCopy(), change) }
	}
	b.problem("server: another subject", ca, server(func(r *recipe) { r.RawSubject = w.printable(ca) }), check.RuleSubject)
	b.problem("server: the root key", ca, func(f *fixture) {
		root := f.cert("root-ca.crt")
		f.reissue(f.serverCopy(), func(r *recipe) {
			r.pub = root.PublicKey
			set(subjectKeyID, append([]byte{0x04, 20}, root.SubjectKeyId...))(r)
		})
	}, check.RulePublicKey)
	b.problem("server: signed by another node", ca, server(func(r *recipe) { r.signer = w.keys[w.ids[aa]] }), check.RuleCopy)
	b.problem("server: ended", ca, server(expiresIn(-day)), check.RuleDates)
	b.warning("server: ends tomorrow", ca, server(expiresIn(36*time.Hour)), check.RuleExpiry)
	b.warning("server: ends in 30 years", ca, server(expiresIn(30*365*day)), check.RuleLifetime)
	b.problem("server: an authority", ca, server(set(basicConstraints, caNoPathLen)), check.RuleBasicConstraints)
	b.problem("server: no basicConstraints", ca, server(drop(basicConstraints)), check.RuleBasicConstraints)
	b.problem("server: keyUsage without keyEncipherment", ca, server(set(keyUsage, signOnly)), check.RuleKeyUsage)
	b.problem("server: for clients only", ca, server(set(extKeyUsage, sequence(clientAuth))), check.RuleExtKeyUsage)
	b.problem("server: for servers only", ca, server(set(extKeyUsage, sequence(serverAuth))), check.RuleExtKeyUsage)
	b.problem("server: extKeyUsage critical", ca, server(flip(extKeyUsage)), check.RuleExtKeyUsage)
	b.problem("server: no subjectKeyIdentifier", ca, server(drop(subjectKeyID)), check.RuleSubjectKeyID)
	b.problem("server: no authorityKeyIdentifier", ca, server(drop(authorityKeyID)), check.RuleAuthorityKeyID)
	b.problem("server: a second name, which the peer does not permit", ca,
		server(set(asn1.ObjectIdentifier{2, 5, 29, 17}, sequence(directoryName(w.subject(da))))), check.RulePeerChain)
}

func (b *breakages) peerCertificates(w *world) {
	// The peer certificate that the accounting authority has issued to the creditors
	// agent.
	issued := "peers/" + w.ids[ca] + "/peercert.crt"
	peer := func(change func(*recipe)) func(*fixture) {
		return func(f *fixture) { f.reissue(issued, change) }
	}
	permitted := func(names ...[]byte) []byte {
		var subtrees []byte
		for _, name := range names {
			subtrees = append(subtrees, sequence(name)...)
		}
		return sequence(tlv(0xa0, subtrees))
	}
	b.problem("peer: another subject", aa, peer(func(r *recipe) { r.RawSubject = w.printable(ca) }), check.RuleSubject)
	b.problem("peer: another key", aa, peer(func(r *recipe) { r.pub = w.keys[w.ids[da]].Public() }), check.RulePublicKey, check.RuleSubjectKeyID)
	b.problem("peer: signed by the peer", aa, peer(func(r *recipe) { r.signer = w.keys[w.ids[ca]] }), check.RuleSignature, check.RuleCopy)
	b.problem("peer: another issuer", aa, peer(func(r *recipe) { r.issuer = w.printable(aa) }), check.RuleIssuer)
	b.problem("peer: ended", aa, peer(expiresIn(-day)), check.RuleDates)
	b.warning("peer: ends in a week", aa, peer(expiresIn(7*day)), check.RuleExpiry)
	b.warning("peer: ends in 499 years", aa, peer(func(r *recipe) { r.NotAfter = time.Now().UTC().AddDate(499, 0, 0) }), check.RuleLifetime)
	b.problem("peer: not an authority", aa, peer(set(basicConstraints, notCA)), check.RuleBasicConstraints)
	b.problem("peer: basicConstraints not critical", aa, peer(flip(basicConstraints)), check.RuleBasicConstraints)
	b.note("peer: no pathlen", aa, peer(set(basicConstraints, caNoPathLen)), check.RulePathLen)
	b.problem("peer: keyUsage without keyCertSign", aa, peer(set(keyUsage, crlSign)), check.RuleKeyUsage)
	b.problem("peer: for servers only", aa, peer(set(extKeyUsage, sequence(serverAuth))), check.RuleExtKeyUsage)
	b.problem("peer: no subjectKeyIdentifier", aa, peer(drop(subjectKeyID)), check.RuleSubjectKeyID)
	b.problem("peer: authorityKeyIdentifier of another key", aa, peer(set(authorityKeyID, sequence([]byte{0x80, 4, 1, 2, 3, 4}))), check.RuleAuthorityKeyID)
	b.problem("peer: no nameConstraints", aa, peer(drop(nameConstraints)), check.RuleNameConstraints)
	b.problem("peer: nameConstraints not critical", aa, peer(flip(nameConstraints)), check.RuleNameConstraints)
	b.problem("peer: another name is permitted", aa, peer(set(nameConstraints, permitted(directoryName(w.subject(da))))), check.RuleNameConstraints)
	b.problem("peer: another name is permitted as well", aa, peer(set(nameConstraints, permitted(directoryName(w.subject(ca)), directoryName(w.subject(da))))), check.RuleNameConstraints)
	b.problem("peer: every name is permitted", aa, peer(set(nameConstraints, permitted(directoryName(sequence())))), check.RuleNameConstraints)
	b.problem("peer: every directoryName is permitted, but only one host", aa, peer(set(nameConstraints, permitted(tlv(0x82, []byte("a"))))), check.RuleNameConstraints)
	b.problem("peer: no comment", aa, peer(drop(netscapeComment)), check.RuleComment)
	b.problem("peer: comment critical", aa, peer(flip(netscapeComment)), check.RuleComment)
	b.problem("peer: comment without subnet", aa, peer(comment("hello")), check.RuleComment)
	b.problem("peer: comment with a bad subnet", aa, peer(comment("Subnet: 00000X")), check.RuleComment)
	b.problem("peer: subnet of 8 digits for a creditors agent", aa, peer(comment("Subnet: 00000001")), check.RuleComment, check.RuleSubnetFile)
	b.note("peer: a subnet from an agent", ca, func(f *fixture) { f.reissue("peers/"+w.ids[aa]+"/peercert.crt", comment("Subnet: 000001")) }, check.RuleComment)
	b.problem("received: another subnet", ca, func(f *fixture) { f.reissue("peers/"+w.ids[aa]+"/sub-ca.crt", comment("Subnet: 000002")) }, check.RuleSubnetFile)
	b.problem("received: no nameConstraints", ca, func(f *fixture) { f.reissue("peers/"+w.ids[aa]+"/sub-ca.crt", drop(nameConstraints)) }, check.RuleNameConstraints)
}

func (b *breakages) records(w *world) {
	line := func(f *fixture, n int) string { return strings.SplitAfter(f.read("db/index"), "\n")[n] }
	b.problem("index: an invalid line", aa, func(f *fixture) { f.write("db/index", f.read("db/index")+"rubbish\n") }, check.RuleIndexLine)
	b.problem("index: 1,000 invalid lines", aa, func(f *fixture) { f.write("db/index", f.read("db/index")+strings.Repeat("x\ty\n", 1000)) }, check.RuleIndexLine)
	b.problem("index: unknown status", aa, func(f *fixture) { f.write("db/index", "X"+f.read("db/index")[1:]) }, check.RuleIndexLine, check.RuleIndexUnlisted)
	b.problem("index: revoked without a date", aa, func(f *fixture) { f.write("db/index", "R"+f.read("db/index")[1:]) }, check.RuleIndexLine, check.RuleIndexUnlisted)
	b.problem("index: serial number in lower case", aa, func(f *fixture) {
		serial := strings.Split(line(f, 0), "\t")[3]
		f.replace("db/index", serial, "ab")
	}, check.RuleIndexLine, check.RuleIndexUnlisted)
	b.problem("index: another expiry", aa, func(f *fixture) {
		expiry := strings.Split(line(f, 0), "\t")[1]
		f.replace("db/index", expiry, "20990101000000Z")
	}, check.RuleIndexEntry)
	b.problem("index: invalid expiry", aa, func(f *fixture) {
		expiry := strings.Split(line(f, 0), "\t")[1]
		f.replace("db/index", expiry, "tomorrow")
	}, check.RuleIndexLine, check.RuleIndexUnlisted)
	b.problem("index: another subject", aa, func(f *fixture) { f.replace("db/index", w.ids[ca], w.ids[da]) }, check.RuleIndexEntry)
	b.warning("index: a line is missing", aa, func(f *fixture) { f.replace("db/index", line(f, 1), "") }, check.RuleIndexUnlisted)
	b.problem("index: a line twice", aa, func(f *fixture) { f.write("db/index", f.read("db/index")+line(f, 1)) }, check.RuleSerialDuplicate)
	b.warning("index.attr: unique subjects", aa, func(f *fixture) { f.write("db/index.attr", "unique_subject = yes\n") }, check.RuleIndexAttr)
	b.problem("one serial number for two certificates", aa, func(f *fixture) {
		serial := f.cert("peers/" + w.ids[da] + "/peercert.crt").SerialNumber
		f.reissue("peers/"+w.ids[ca]+"/peercert.crt", func(r *recipe) { r.SerialNumber = serial })
	}, check.RuleSerialDuplicate, check.RuleIndexEntry)
	b.problem("serial: set back", aa, func(f *fixture) {
		f.write("db/serial", strings.TrimSuffix(filepath.Base(f.serverCopy()), ".pem")+"\n")
	}, check.RuleSerialNext)
	b.problem("serial: set back by a few", aa, func(f *fixture) {
		used, _ := new(big.Int).SetString(strings.Split(line(f, 1), "\t")[3], 16)
		f.write("db/serial", evenHex(used.Sub(used, big.NewInt(5)))+"\n")
		f.replace("db/index", line(f, 0), "")
		f.remove("root-ca.crt")
		f.remove("certs")
	}, check.RuleSerialNext, check.RuleCertMissing, check.RuleCopyMissing)
	b.problem("serial: no number", aa, func(f *fixture) { f.write("db/serial", "next\n") }, check.RuleSerialNext)
	b.problem("copy under another number", aa, func(f *fixture) { f.rename(f.serverCopy(), "certs/AB.pem") }, check.RuleCopy, check.RuleCopyMissing)
	b.problem("copy from another node", aa, func(f *fixture) {
		cert := f.cert("peers/" + w.ids[ca] + "/sub-ca.crt")
		f.write("certs/"+strings.ToUpper(evenHex(cert.SerialNumber))+".pem", string(pki.EncodeCertificatePEM(cert)))
	}, check.RuleCopy)
	b.note("copy lost", aa, func(f *fixture) { f.remove(f.serverCopy()) }, check.RuleCopyMissing)
	b.note("copy for a removed peer", aa, func(f *fixture) {
		f.remove("peers/" + w.ids[ca])
	}, check.RuleCopyUnused)
	b.warning("copy for a removed peer, without a reservation", aa, func(f *fixture) {
		f.remove("peers/" + w.ids[ca])
		f.remove("db/subnets/creditors/000001")
	}, check.RuleCopyUnused, check.RuleSubnetUnreserved)
	b.warning("another root certificate", aa, func(f *fixture) {
		old := f.read("root-ca.crt")
		f.reissue("root-ca.crt", func(r *recipe) { r.SerialNumber = big.NewInt(5) })
		f.write("root-ca.crt", old)
	}, check.RuleCopyUnused, check.RuleIndexUnlisted)
}

func evenHex(n *big.Int) string {
	s := n.Text(16)
	return strings.Repeat("0", len(s)%2) + s
}

func (b *breakages) subnets(w *world) {
	const creditors, debtors = "db/subnets/creditors/", "db/subnets/debtors/"
	subnetOf := func(kind nodetype.Type) string { return "peers/" + w.ids[kind] + "/subnet.txt" }
	b.problem("no creditors-subnet.txt", ca, func(f *fixture) { f.remove("creditors-subnet.txt") }, check.RuleSubnetOwn)
	b.problem("creditors-subnet.txt of 4 digits", ca, func(f *fixture) { f.write("creditors-subnet.txt", "0001\n") }, check.RuleSubnetOwn)
	b.problem("no masq-subnet.txt", ca, func(f *fixture) { f.remove("peers/" + w.ids[aa] + "/masq-subnet.txt") }, check.RuleSubnetFile)
	b.problem("no debtors-subnet.txt", da, func(f *fixture) { f.remove("debtors-subnet.txt") }, check.RuleSubnetFile)
	b.problem("another debtors-subnet.txt", da, func(f *fixture) { f.write("debtors-subnet.txt", w.ids[aa]+"01\n") }, check.RuleSubnetFile)
	b.problem("no subnet.txt", aa, func(f *fixture) { f.remove(subnetOf(ca)) }, check.RuleSubnetFile)
	b.problem("subnet.txt of another authority", aa, func(f *fixture) { f.write(subnetOf(da), "0000000000\n") }, check.RuleSubnetFile)
	b.warning("no reservation", aa, func(f *fixture) { f.remove(debtors + w.ids[aa] + "00") }, check.RuleSubnetUnreserved)
	b.problem("reservation for another peer", aa, func(f *fixture) { f.write(creditors+"000001", w.ids[da]+"\n") }, check.RuleSubnetUnreserved)
	b.warning("reservation of a debtors subnet for an unknown node", aa, func(f *fixture) { f.write(debtors+w.ids[aa]+"07", strings.Repeat("0", 32)+"\n") }, check.RuleSubnetUnused)
	b.note("reservation of a creditors subnet for an unknown node", aa, func(f *fixture) { f.write(creditors+"000007", strings.Repeat("0", 32)+"\n") }, check.RuleSubnetUnused)
	b.note("reservation of a long debtors subnet for an unknown node", aa, func(f *fixture) { f.write(debtors+w.ids[aa]+"0711", strings.Repeat("0", 32)+"\n") }, check.RuleSubnetUnused)
	b.warning("reservation of a subnet of another authority", aa, func(f *fixture) { f.write(debtors+"0000000000", w.ids[da]+"\n") }, check.RuleSubnetReservation)
	b.problem("a subnet within another", aa, func(f *fixture) {
		// A second debtors agent, which is the first one under another name.
		other := strings.Repeat("0", 32)
		f.must(os.CopyFS(f.path("peers/"+other), os.DirFS(f.path("peers/"+w.ids[da]))))
		f.write("peers/"+other+"/subnet.txt", w.ids[aa]+"0077\n")
		f.write(debtors+w.ids[aa]+"0077", other+"\n")
	}, check.RulePeerIdentity, check.RuleSubnetFile, check.RuleSubnetOverlap)
	b.problem("counter that is no number", aa, func(f *fixture) { f.write(debtors+"SEQNUM", "many\n") }, check.RuleSubnetCounter)
	b.problem("counter too high", aa, func(f *fixture) { f.write(debtors+"SEQNUM", "256\n") }, check.RuleSubnetCounter)
	b.problem("no counter", aa, func(f *fixture) { f.remove(debtors + "SEQNUM") }, check.RuleIncomplete)
}

func (b *breakages) peers(w *world) {
	peer := "peers/" + w.ids[aa] + "/"
	b.note("folder whose name is not a node ID", ca, func(f *fixture) { f.write("peers/1234ABCD/x", "") }, check.RulePeerName)
	b.warning("a name of two lines", ca, func(f *fixture) { f.write(peer+"name.txt", "a bank\nanother\n") }, check.RulePeerAlias)
	b.warning("a name like an ID", ca, func(f *fixture) { f.write(peer+"name.txt", "1234abcd\n") }, check.RulePeerAlias)
	b.warning("two peers of one name", aa, func(f *fixture) {
		f.write("peers/"+w.ids[ca]+"/name.txt", "Harbour Bank\n")
		f.write("peers/"+w.ids[da]+"/name.txt", "harbour bank\n")
	}, check.RulePeerAlias)
	b.warning("a folder as a name", ca, func(f *fixture) { f.write(peer+"name.txt/x", "") }, check.RulePeerAlias)
	b.problem("no nodetype.txt", ca, func(f *fixture) { f.remove(peer + "nodetype.txt") }, check.RulePeerType)
	b.problem("nodetype.txt of an unknown type", ca, func(f *fixture) { f.write(peer+"nodetype.txt", "Shops") }, check.RulePeerType)
	b.problem("nodetype.txt of a type that can not be a peer", ca, func(f *fixture) { f.write(peer+"nodetype.txt", "Debtors Agents\n") }, check.RulePeerType, check.RulePeerIdentity)
	b.problem("pinned certificate of another node", ca, func(f *fixture) { f.rename("peers/"+w.ids[aa], "peers/00000000") }, check.RulePeerIdentity)
	b.problem("pinned certificate lost", ca, func(f *fixture) { f.remove(peer + "root-ca.crt") }, check.RuleCertMissing)
	b.problem("pinned certificate is the node's own", aa, func(f *fixture) {
		f.write("peers/"+w.ids[ca]+"/root-ca.crt", f.read("root-ca.crt"))
	}, check.RulePeerIdentity, check.RulePublicKey, check.RuleSubject, check.RuleIssuer, check.RuleSignature,
		check.RuleAuthorityKeyID, check.RuleNameConstraints, check.RuleComment)
	b.problem("issued certificate lost", ca, func(f *fixture) { f.remove(peer + "peercert.crt") }, check.RuleCertMissing, check.RuleCopyUnused)
	b.problem("received certificate damaged", ca, func(f *fixture) { f.write(peer+"sub-ca.crt", "x") }, check.RuleCertPEM)
	b.problem("two peers of a debtors agent", da, func(f *fixture) {
		f.must(os.CopyFS(f.path("peers/00000000"), os.DirFS(f.path("peers/"+w.ids[aa]))))
	}, check.RulePeerSingle, check.RulePeerIdentity)
	b.problem("no queues", ca, func(f *fixture) { f.write(peer+"queues.txt", "0\n") }, check.RulePeerQueues)
	b.problem("100 queues", ca, func(f *fixture) { f.write(peer+"queues.txt", "100\n") }, check.RulePeerQueues)
	b.warning("active without certificate", ca, func(f *fixture) { f.remove(peer + "sub-ca.crt") }, check.RulePeerState)
	b.warning("deactivated without certificate", ca, func(f *fixture) { f.remove(peer + "sub-ca.crt"); f.write(peer+"DEACTIVATED", "2024-01-01\n") }, check.RulePeerState)
	b.problem("deactivated on two days", ca, func(f *fixture) { f.write(peer+"DEACTIVATED", "2024-01-01\n2024-01-02\n") }, check.RulePeerState)
	b.problem("no servers known", ca, func(f *fixture) { f.remove(peer + "nodeinfo/stomp.toml") }, check.RuleStompTOML)
	b.warning("published bundle cut", ca, func(f *fixture) { f.replace("db/info-bundle.zip", "root-ca.crt", "") }, check.RulePublished)
	b.problem("a list of revoked keys with a word", ca, func(f *fixture) { f.write("nodeinfo/revoked-keys.txt", "all\n") }, check.RuleRevokedKeys)
	b.problem("a peer's list of revoked keys with a word", ca, func(f *fixture) { f.write(peer+"revoked-keys.txt", "all\n") }, check.RuleRevokedKeys)
	b.warning("a peer's list of revoked keys full", ca, func(f *fixture) {
		var list strings.Builder
		for i := range node.MaxRevokedKeys {
			fmt.Fprintf(&list, "sha256:%064x\n", i)
		}
		f.write(peer+"revoked-keys.txt", list.String())
		f.write(peer+"nodeinfo/revoked-keys.txt", "sha256:"+strings.Repeat("f", 64)+"\n")
	}, check.RuleRevokedKeys)
	b.warning("revoked key not published", ca, func(f *fixture) {
		f.write("nodeinfo/revoked-keys.txt", "sha256:"+strings.Repeat("0", 64)+"\n")
	}, check.RulePublished)
	b.warning("manifest not published", ca, func(f *fixture) {
		f.write("nodeinfo/stomp.toml", "servers = [\"new.example.com:1234\"]\nhost = \"/\"\ndestination = \"/exchange/creditors_in\"\n")
	}, check.RulePublished)
	b.warning("another node's bundle published", ca, func(f *fixture) {
		data, err := os.ReadFile(filepath.Join(w.dirs[aa], "db", "info-bundle.zip"))
		f.must(err)
		f.write("db/info-bundle.zip", string(data))
	}, check.RulePublished)
	b.warning("a bad URL of the info-bundle", ca, func(f *fixture) {
		f.replace(peer+"nodeinfo/stomp.toml", "servers", "info-bundle-urls = [\"ftp://example.com/x\"]\nservers")
	}, check.RuleStompTOML)
	b.note("no servers known of a deactivated peer", ca, func(f *fixture) {
		f.remove(peer + "nodeinfo/stomp.toml")
		f.write(peer+"DEACTIVATED", "2024-01-01\n")
	}, check.RuleStompTOML)
	b.problem("nodeinfo that is a git repository", ca, func(f *fixture) {
		for _, file := range []string{"HEAD", "config", "objects/x", "refs/x"} {
			f.write(peer+"nodeinfo/"+file, "x")
		}
	}, check.RuleNodeinfoName)
	b.problem("nodeinfo with a repository below", ca, func(f *fixture) { f.write(peer+"nodeinfo/x/head", "x") }, check.RuleNodeinfoName)
	b.problem("nodeinfo with a git folder", ca, func(f *fixture) { f.write(peer+"nodeinfo/.git/config", "x") }, check.RuleNodeinfoName)
	b.problem("nodeinfo that is too deep", ca, func(f *fixture) { f.write(peer+"nodeinfo/a/b/c", "x") }, check.RuleNodeinfoName)
	b.problem("nodeinfo with a great many folders", ca, func(f *fixture) {
		f.must(os.MkdirAll(filepath.Join(f.dir, filepath.FromSlash(peer), "nodeinfo", strings.Repeat("a/", 1100)), 0o755))
	}, check.RuleNodeinfoName)
	b.problem("own nodeinfo with a device's name", ca, func(f *fixture) { f.write("nodeinfo/aux.txt", "x") }, check.RuleNodeinfoName)
	b.warning("a certificate with a byte order mark", ca, func(f *fixture) { f.write(peer+"root-ca.crt", "\ufeff"+f.read(peer+"root-ca.crt")) }, check.RuleByteOrderMark)
	for _, file := range []string{"db/nodetype", "db/nodeid", "db/index", peer + "nodetype.txt", peer + "queues.txt", "creditors-subnet.txt"} {
		b.warning("CR LF in "+file, ca, func(f *fixture) { f.write(file, strings.ReplaceAll(f.read(file), "\n", "\r\n")) }, check.RuleLineEnds)
	}
	for _, file := range []string{"db/subnets/creditors/SEQNUM", "db/subnets/creditors/000001"} {
		b.warning("CR LF in "+file, aa, func(f *fixture) { f.write(file, strings.ReplaceAll(f.read(file), "\n", "\r\n")) }, check.RuleLineEnds)
	}
	b.warning("nodeinfo from the future", ca, func(f *fixture) { f.write(peer+"nodeinfo/updated-at.txt", "2999-01-01") }, check.RuleUpdatedAt)
}

func (b *breakages) secrets(w *world) {
	if runtime.GOOS != "windows" {
		b.problem("private/ open to all", ca, func(f *fixture) { f.chmod("private", 0o755) }, check.RulePrivateMode)
		b.problem("root key open to the group", ca, func(f *fixture) { f.chmod("private/root-ca.key", 0o640) }, check.RuleKeyMode)
		b.problem("a file that anybody can change", ca, func(f *fixture) { f.chmod("peers/"+w.ids[aa]+"/root-ca.crt", 0o666) }, check.RuleWritable)
	}
	rootKey := func(f *fixture) string { return encodeKey(f, w.keys[w.ids[ca]]) }
	secret := func(f *fixture, file, content string) { f.write(file, content); f.chmod(file, 0o600) }
	drill := func(date string) func(f *fixture) {
		return func(f *fixture) { f.write("db/last-key-drill.txt", date+"\n") }
	}
	b.warning("a drill long ago", ca, drill(time.Now().AddDate(-1, 0, -2).Format(time.DateOnly)), check.RuleDrill)
	b.warning("a drill next week", ca, drill(time.Now().AddDate(0, 0, 7).Format(time.DateOnly)), check.RuleDrill)
	b.note("private/ not ignored by git", ca, func(f *fixture) { f.must(os.MkdirAll(f.path(".git"), 0o755)); f.remove(".gitignore") }, check.RuleGit)
	b.problem("root-ca.conf with a merge conflict", ca, func(f *fixture) {
		conf := f.read("root-ca.conf")
		f.write("root-ca.conf", "<<<<<<< HEAD\n"+conf+"=======\n"+conf+">>>>>>> other\n")
	}, check.RuleConflict)
	b.problem("db/index with a merge conflict", ca, func(f *fixture) {
		f.write("db/index", "<<<<<<< HEAD\n"+f.read("db/index")+"=======\n>>>>>>> other\n")
	}, check.RuleConflict, check.RuleIndexLine)
	b.note("a drill without a date", ca, drill("yesterday"), check.RuleDrill)
	b.problem("root key not encrypted", ca, func(f *fixture) { secret(f, "private/root-ca.key", rootKey(f)) }, check.RuleKeyEncrypted)
	b.problem("root key of another node, not encrypted", ca, func(f *fixture) { secret(f, "private/root-ca.key", encodeKey(f, otherKey(f))) }, check.RuleKeyEncrypted, check.RuleRootKey)
	b.problem("root key file without a key", ca, func(f *fixture) { secret(f, "private/root-ca.key", "x") }, check.RuleRootKey)
	b.problem("root key far too large", ca, func(f *fixture) { secret(f, "private/root-ca.key", strings.Repeat("x", 100_000)) }, check.RuleUnreadable)
	b.problem("a plain copy of the root key", ca, func(f *fixture) { secret(f, "private/backup.key", rootKey(f)) }, check.RuleKeyEncrypted)
	b.problem("a plain copy of the root key in DER", ca, func(f *fixture) {
		block := strings.Split(rootKey(f), "-----")[2]
		secret(f, "old/backup", decodeBase64(f, block))
	}, check.RuleKeyEncrypted)
	b.problem("a plain copy of the root key in DER, traditional", ca, func(f *fixture) {
		der, err := x509.MarshalECPrivateKey(w.keys[w.ids[ca]].(*ecdsa.PrivateKey))
		f.must(err)
		secret(f, "old/backup", string(der))
	}, check.RuleKeyEncrypted)
	b.warning("a server key beside the certificates", ca, func(f *fixture) { secret(f, "server.key", encodeKey(f, otherKey(f))) }, check.RuleKeyPlace)
	b.problem("a server key among what is published", ca, func(f *fixture) { secret(f, "nodeinfo/keys.pem", "text\n"+encodeKey(f, otherKey(f))) }, check.RuleKeyPlace)
}
