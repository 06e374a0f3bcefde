package nodetest

import (
	"crypto"
	"crypto/x509"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Member is one of the creditors agents that [NewMembers] makes.
type Member struct {
	Dir               string
	ID                string
	CertFile, KeyFile string // of its server certificate
	Subnet            string // given to it by the accounting authority
}

// NewMembers makes count creditors agents that are active peers of an accounting authority,
// and makes the authority an active peer of each. It writes only the files that services
// read, without protection against crashes, and is about twenty times as fast as [New]
// and [Peer]. addresses returns the address of member i's server, and the address of the
// authority's server for this member.
func NewMembers(t testing.TB, authority *Node, count int, addresses func(i int) (member, authority string)) []Member {
	t.Helper()
	c := memberMaker{t: t, authority: authority, dir: t.TempDir(), now: time.Now()}
	c.serverKey = c.key()
	list := make([]Member, count)
	for i := range list {
		memberServer, authorityServer := addresses(i)
		list[i] = c.member(i, memberServer, authorityServer)
	}
	return list
}

// memberMaker makes members.
type memberMaker struct {
	t         testing.TB
	authority *Node
	dir       string
	now       time.Time
	serverKey crypto.Signer // the same for all members
	serial    int64
}

func (c *memberMaker) check(err error) {
	c.t.Helper()
	if err != nil {
		c.t.Fatal(err)
	}
}

func (c *memberMaker) key() crypto.Signer {
	c.t.Helper()
	key, err := pki.GenerateKey(pki.P256)
	c.check(err)
	return key
}

func (c *memberMaker) nextSerial() *big.Int {
	c.serial++
	return big.NewInt(c.serial)
}

func (c *memberMaker) member(i int, memberServer, authorityServer string) Member {
	c.t.Helper()
	const kind = nodetype.CreditorsAgent
	rootKey := c.key()
	id, err := pki.DerivedID(rootKey.Public())
	c.check(err)
	self := pki.Identity{Type: kind, ID: id}
	root, err := pki.SelfSign(self, rootKey, c.nextSerial(), c.now)
	c.check(err)
	csrDER, err := pki.NewCSR(self, c.serverKey, pki.ServerCSR)
	c.check(err)
	csr, err := x509.ParseCertificateRequest(csrDER)
	c.check(err)
	member, authority := &pki.Authority{Cert: root, Key: rootKey}, &pki.Authority{Cert: c.authority.Root(), Key: c.authority.Key}
	server, err := member.SignServer(csr, c.nextSerial(), c.now, 365*24*time.Hour)
	c.check(err)
	byMember, err := member.SignPeer(c.authority.Root(), "", c.nextSerial(), c.now)
	c.check(err)
	subnet := fmt.Sprintf("%06x", 0x100000+i) // beyond those that are given out one after the other
	byAuthority, err := authority.SignPeer(root, subnet, c.nextSerial(), c.now)
	c.check(err)
	serverKey, err := pki.EncodeKey(c.serverKey)
	c.check(err)

	m := Member{Dir: filepath.Join(c.dir, id), ID: id, Subnet: subnet, CertFile: filepath.Join(c.dir, id+".crt"), KeyFile: filepath.Join(c.dir, id+".key")}
	pem := pki.EncodeCertificatePEM
	c.write("", map[string][]byte{m.CertFile: pem(server), m.KeyFile: serverKey})
	c.write(m.Dir, map[string][]byte{
		"db/nodetype":          []byte(kind.OU() + "\n"),
		"db/nodeid":            []byte(id + "\n"),
		"creditors-subnet.txt": []byte("000001\n"),
		"nodeinfo/stomp.toml":  node.EncodeStompTOML(kind, []string{memberServer}),
		"root-ca.crt":          pem(root),
	})
	const aa = nodetype.AccountingAuthority
	c.write(filepath.Join(m.Dir, "peers", c.authority.Identity().ID), map[string][]byte{
		"nodetype.txt":        []byte(aa.OU() + "\n"),
		"root-ca.crt":         pem(c.authority.Root()),
		"peercert.crt":        pem(byMember),
		"sub-ca.crt":          pem(byAuthority),
		"masq-subnet.txt":     []byte(subnet + "\n"),
		"nodeinfo/stomp.toml": node.EncodeStompTOML(aa, []string{authorityServer}),
		"ACTIVE":              nil,
	})
	c.write(filepath.Join(c.authority.Path(), "peers", id), map[string][]byte{
		"nodetype.txt":        []byte(kind.OU() + "\n"),
		"root-ca.crt":         pem(root),
		"peercert.crt":        pem(byAuthority),
		"sub-ca.crt":          pem(byMember),
		"subnet.txt":          []byte(subnet + "\n"),
		"nodeinfo/stomp.toml": node.EncodeStompTOML(kind, []string{memberServer}),
		"ACTIVE":              nil,
	})
	return m
}

func (c *memberMaker) write(dir string, files map[string][]byte) {
	c.t.Helper()
	for name, data := range files {
		path := filepath.Join(dir, filepath.FromSlash(name))
		c.check(os.MkdirAll(filepath.Dir(path), 0o755))
		c.check(os.WriteFile(path, data, 0o600))
	}
}
