package cli

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// "peer add URL" registers only a certificate of the node whose info-bundle is at the URL: the owner of
// the place can not get another node registered. What is still missing is printed, and the exit code is 1.
// Text beside a certificate does not get into the node's directory.
func TestPeerAddForeignCertificate(t *testing.T) {
	t.Setenv("PEERLINK_FOLLOW_LOCAL", "true")
	self := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	meant, other := nodetest.New(t, nodetype.CreditorsAgent, "a.example.com:1234"), nodetest.New(t, nodetype.DebtorsAgent, "b.example.com:1234")
	issued := make(map[*nodetest.Node][]byte)
	for _, n := range []*nodetest.Node{meant, other} {
		self.Sign(t, n.Bundle(t))
		n.Sign(t, self.Bundle(t))
		cert, err := os.ReadFile(n.IssuedFile(nodetest.AAID))
		if err != nil {
			t.Fatal(err)
		}
		issued[n] = append([]byte("\x1b]0;text\a\n"), cert...)
	}
	bundle, err := os.ReadFile(meant.Bundle(t))
	if err != nil {
		t.Fatal(err)
	}
	offered := issued[other]
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, ".crt") {
			w.Write(offered)
		} else {
			w.Write(bundle)
		}
	}))
	defer server.Close()
	add := []string{"-C", self.Path(), "peer", "add", server.URL + "/info-bundle.zip", "--fingerprint", pki.Fingerprint(meant.Root().PublicKey)}
	code, stdout, stderr := runCommand(add...)
	if id := other.Identity().ID; code != exitFailed || stdout != meant.Identity().ID+"\n" || !strings.Contains(stderr, "was issued by debtors-agent "+id) || !strings.Contains(stderr, "Missing: the peer certificate from "+meant.Identity().ID) {
		t.Errorf("another node's certificate: exit code %d\n%s%s", code, stdout, stderr)
	}
	for _, n := range []*nodetest.Node{meant, other} {
		if p, err := self.Peer(n.Identity().ID); err != nil || p.SubCA != nil {
			t.Errorf("%s is registered (%v)", n.Identity(), err)
		}
	}
	offered = issued[meant]
	if code, _, stderr := runCommand(add...); code != 0 || !strings.Contains(stderr, "Nothing is missing here") {
		t.Errorf("its own certificate: exit code %d\n%s", code, stderr)
	}
	stored, err := os.ReadFile(filepath.Join(self.Path(), "peers", meant.Identity().ID, "sub-ca.crt"))
	if err != nil || !strings.HasPrefix(string(stored), "-----BEGIN CERTIFICATE-----\n") {
		t.Errorf("sub-ca.crt is %q, %v", stored, err)
	}
}
