package offline

import (
	"archive/zip"
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/pem"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// A node of each type, whose directory never contains the root key, gets everything
// that it needs with one request: its peers register the certificates that were
// signed offline, it registers theirs, and both ends of a link accept each other's
// chains.
func TestSession(t *testing.T) {
	for _, tt := range []struct {
		self  nodetype.Type
		key   pki.KeyKind
		peers []nodetype.Type
	}{
		{aa, pki.RSA3072, []nodetype.Type{ca, da}},
		{ca, pki.P256, []nodetype.Type{aa}},
		{da, pki.P384, []nodetype.Type{aa}},
	} {
		t.Run(tt.self.Short(), func(t *testing.T) {
			key, err := pki.GenerateKey(tt.key)
			if err != nil {
				t.Fatal(err)
			}
			self := nodetest.NewWithKey(t, t.TempDir(), tt.self, "self.example.com:1234", key)
			out, usbStick := t.TempDir(), t.TempDir()
			items := []Requested{
				ServerCert{CSR: serverCSR(t, self.Identity()), Days: 365, File: filepath.Join(out, "server.crt")},
				InfoBundle{File: filepath.Join(out, "bundle.zip")},
			}
			var peers []*nodetest.Node
			for _, kind := range tt.peers {
				peer := nodetest.New(t, kind, "peer.example.com:1234")
				peers = append(peers, peer)
				items = append(items, peerCertFor(t, peer))
			}

			request := mustCollect(t, self.Dir, items...)
			writeFileT(t, string(request.Encode()), usbStick, "request.json")

			received, err := ReadRequest(readFileT(t, usbStick, "request.json"), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			checkSummary(t, received, peers)
			answer, err := Fulfil(received, key, time.Now())
			if err != nil {
				t.Fatal(err)
			}
			writeFileT(t, string(answer.Encode()), usbStick, "answer.json")

			if answer, err = ReadAnswer(readFileT(t, usbStick, "answer.json")); err != nil {
				t.Fatal(err)
			}
			done := mustFile(t, self.Dir, answer)
			if len(done) != len(request.Summary()) {
				t.Errorf("%d items filed, %d asked for", len(done), len(request.Summary()))
			}
			for _, i := range done {
				if _, err := os.Stat(i.Path); err != nil || i.State != filed {
					t.Errorf("%v: %s, %v", i, i.State, err)
				}
			}
			checkOutputs(t, self.Dir, request)
			if published, err := os.ReadFile(self.PublishedBundle()); err != nil || !bytes.Equal(published, readFileT(t, out, "bundle.zip")) {
				t.Errorf("the new info-bundle is not the one that is published (%v)", err)
			}
			if waiting, err := WaitingRequests(self.Dir, time.Now()); err != nil || len(waiting) != 0 {
				t.Errorf("%d requests are waiting (%v)", len(waiting), err)
			}
			for _, peer := range peers {
				link(t, self, peer, filepath.Join(out, "bundle.zip"), readFileT(t, out, "server.crt"))
			}
			report, err := check.Run(ctx, self.Path(), check.Options{})
			if err != nil || !report.OK() {
				t.Errorf("checking the directory: error %v, report %+v", err, report)
			}
			openssl(t, self, filepath.Join(out, "server.crt"), filepath.Join(out, "bundle.zip"))
		})
	}
}

// checkSummary checks that the summary of a request, which is shown on the offline
// machine, has all items and their properties.
func checkSummary(t *testing.T, r *Request, peers []*nodetest.Node) {
	t.Helper()
	var kinds []Kind
	text := ""
	for _, i := range r.Summary() {
		kinds = append(kinds, i.Kind)
		text += i.String() + "\n"
	}
	want := []Kind{KindServerCert}
	for range peers {
		want = append(want, KindPeerCert)
	}
	if want = append(want, KindRootCSR, KindInfoBundle); !slices.Equal(kinds, want) {
		t.Errorf("the summary has %v, want %v", kinds, want)
	}
	parts := []string{pki.Fingerprint(r.servers[0].csr.PublicKey), "365 days", "self.example.com:1234", "stomp.toml", time.Now().Format(time.DateOnly)}
	for i, peer := range peers {
		parts = append(parts, peer.Identity().String(), pki.Fingerprint(peer.Root().PublicKey), r.peers[i].subnet)
	}
	for _, s := range parts {
		if !strings.Contains(text, s) {
			t.Errorf("the summary does not contain %q:\n%s", s, text)
		}
	}
}

// link makes the two registered peers and checks the chains of a connection in
// either direction.
func link(t *testing.T, self, peer *nodetest.Node, bundle string, serverPEM []byte) {
	t.Helper()
	peer.Sign(t, bundle)
	if _, _, err := peer.RegisterPeer(ctx, readFileT(t, self.IssuedFile(peer.Identity().ID))); err != nil {
		t.Fatalf("%v does not register the certificate that was signed offline: %v", peer.Identity(), err)
	}
	if _, _, err := self.RegisterPeer(ctx, readFileT(t, peer.IssuedFile(self.Identity().ID))); err != nil {
		t.Fatal(err)
	}
	here, err := self.Peer(peer.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	there, err := peer.Peer(self.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	if here.State() != "registered" || there.State() != "registered" || here.Subnet != there.Subnet {
		t.Errorf("states %s and %s, subnets %q and %q", here.State(), there.State(), here.Subnet, there.Subnet)
	}
	server, err := pki.ParseCertificatePEM(serverPEM)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := pki.VerifyServer([][]byte{server.Raw}, there.Root, self.Identity(), time.Now()); err != nil {
		t.Errorf("chain of the server to which the peer connects: %v", err)
	}
	if id, _, err := pki.VerifyClient([][]byte{server.Raw, here.SubCA.Raw}, peer.Root(), time.Now()); err != nil || id != self.Identity() {
		t.Errorf("chain of the client that connects to the peer: got %v, %v", id, err)
	}
	certFile, _ := peer.ServerCert(t)
	theirs, err := pki.ParseCertificatePEM(readFileT(t, certFile))
	if err != nil {
		t.Fatal(err)
	}
	if id, _, err := pki.VerifyClient([][]byte{theirs.Raw, here.Issued.Raw}, self.Root(), time.Now()); err != nil || id != peer.Identity() {
		t.Errorf("chain of the peer as a client, with the certificate signed offline: got %v, %v", id, err)
	}
}

// openssl verifies everything that was signed with the openssl program.
func openssl(t *testing.T, self *nodetest.Node, serverCert, bundle string) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Log("skipped: verification by OpenSSL, which is not installed")
		return
	}
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command("openssl", args...).CombinedOutput(); err != nil {
			t.Errorf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	root, dir := filepath.Join(self.Path(), "root-ca.crt"), t.TempDir()
	run("verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", root, serverCert)
	ids, err := self.PeerIDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		run("verify", "-x509_strict", "-CAfile", root, self.IssuedFile(id))
	}
	spki, err := x509.MarshalPKIXPublicKey(self.Root().PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	writeFileT(t, string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki})), dir, "root.pub")
	for name, data := range unzip(t, bundle) {
		writeFileT(t, string(data), dir, name)
	}
	run("dgst", "-sha256", "-verify", filepath.Join(dir, "root.pub"), "-signature", filepath.Join(dir, "nodeinfo.signature"), filepath.Join(dir, "nodeinfo.zip"))
	run("req", "-verify", "-noout", "-in", filepath.Join(dir, "root-ca.csr"))
	run("req", "-verify", "-noout", "-in", filepath.Join(self.Path(), "db", "root-ca.csr"))
}

func unzip(t *testing.T, path string) map[string][]byte {
	t.Helper()
	data := readFileT(t, path)
	z, err := zip.NewReader(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		t.Fatal(err)
	}
	files := make(map[string][]byte)
	for _, e := range z.File {
		r, err := e.Open()
		if err != nil {
			t.Fatal(err)
		}
		if files[filepath.Base(e.Name)], err = io.ReadAll(r); err != nil {
			t.Fatal(err)
		}
		r.Close()
	}
	return files
}

// The answers to two waiting requests can be filed in either order, with online
// signing in between, and no serial number, subnet or date is used twice.
func TestTwoRequests(t *testing.T) {
	for _, order := range [][]int{{0, 1}, {1, 0}} {
		n, out := nodetest.New(t, aa, "aa.example.com:1234"), t.TempDir()
		var requests []*Request
		var answers []*Answer
		for i := range 2 {
			requests = append(requests, mustCollect(t, n.Dir,
				ServerCert{CSR: serverCSR(t, n.Identity()), Days: 30, File: filepath.Join(out, string(rune('a'+i))+".crt")},
				peerCertFor(t, nodetest.New(t, ca, "ca.example.com:1234")),
				peerCertFor(t, nodetest.New(t, da, "da.example.com:1234")),
				InfoBundle{File: filepath.Join(out, string(rune('a'+i))+".zip")}))
			n.Sign(t, nodetest.New(t, da, "da.example.com:1234").Bundle(t))
		}
		for _, r := range requests {
			answers = append(answers, signed(t, r, n.Key))
		}
		if waiting, err := WaitingRequests(n.Dir, time.Now()); err != nil || len(waiting) != 2 {
			t.Fatalf("%d requests are waiting (%v)", len(waiting), err)
		}
		for _, i := range order {
			mustFile(t, n.Dir, answers[i])
			n.Sign(t, nodetest.New(t, ca, "ca.example.com:1234").Bundle(t))
		}
		for _, r := range requests {
			checkOutputs(t, n.Dir, r)
		}
		if requests[0].info.date >= requests[1].info.date {
			t.Errorf("the dates of the bundles are %s and %s: peers would ignore the second", requests[0].info.date, requests[1].info.date)
		}
		if got := strings.TrimSpace(string(readFileT(t, n.Path(), "nodeinfo", "updated-at.txt"))); got != requests[1].info.date {
			t.Errorf("the last bundle is dated %s, want %s", got, requests[1].info.date)
		}
		checkRecords(t, n.Dir, 1+2*3+4)
	}
}

// Commands that collect, sign and file on one directory at the same time never
// use a serial number or a subnet twice.
func TestConcurrentUse(t *testing.T) {
	n := nodetest.New(t, aa, "aa.example.com:1234")
	const pairs = 4
	errs := make(chan error, 2*pairs)
	for range pairs {
		away, direct := peerCertFor(t, nodetest.New(t, ca, "x.example.com:1")), nodetest.ReadBundle(t, nodetest.New(t, ca, "x.example.com:1").Bundle(t))
		go func() {
			d, err := node.Open(n.Path())
			if err != nil {
				errs <- err
				return
			}
			r, err := Collect(ctx, d, []Requested{away}, time.Now())
			if err != nil {
				errs <- err
				return
			}
			a, err := Fulfil(r, n.Key, time.Now())
			if err != nil {
				errs <- err
				return
			}
			_, err = File(ctx, d, a, time.Now())
			errs <- err
		}()
		go func() {
			_, err := n.SignPeer(ctx, direct, func() (crypto.Signer, error) { return n.Key, nil })
			errs <- err
		}()
	}
	for range 2 * pairs {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
	checkRecords(t, n.Dir, 1+2*pairs)
}

// checkRecords checks that db/index and certs/ each contain certs certificates with
// distinct serial numbers, that peers have distinct subnets, and that the directory
// has no other problems.
func checkRecords(t *testing.T, d *node.Dir, certs int) {
	t.Helper()
	serials, subnets := make(map[string]bool), make(map[string]bool)
	for line := range strings.Lines(string(readFileT(t, d.Path(), "db", "index"))) {
		serial := strings.Split(line, "\t")[3]
		if serials[serial] {
			t.Errorf("serial number %s is in db/index twice", serial)
		}
		serials[serial] = true
	}
	copies, err := os.ReadDir(filepath.Join(d.Path(), "certs"))
	if err != nil || len(copies) != certs || len(serials) != certs {
		t.Errorf("%d certificates in certs, %d in db/index, want %d (%v)", len(copies), len(serials), certs, err)
	}
	ids, err := d.PeerIDs()
	if err != nil {
		t.Fatal(err)
	}
	for _, id := range ids {
		p, err := d.Peer(id)
		if err != nil {
			t.Fatal(err)
		}
		if subnets[p.Subnet] {
			t.Errorf("subnet %s has two peers", p.Subnet)
		}
		subnets[p.Subnet] = true
	}
	report, err := check.Run(ctx, d.Path(), check.Options{})
	if err != nil || !report.OK() {
		t.Errorf("checking the directory: error %v, report %+v", err, report)
	}
}
