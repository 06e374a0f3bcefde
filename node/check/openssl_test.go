package check_test

import (
	"crypto/rand"
	"encoding/hex"
	"math/big"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"peerlink/node/check"
	"peerlink/node/pki"
)

// A check of a directory that was made with OpenSSL, in the same steps as by the
// reference's scripts, finds nothing.
func TestMadeByOpenSSL(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("skipped: no openssl, which makes the directory that is to be checked")
	}
	w := newWorld(t)
	f := &fixture{t, w, t.TempDir()}
	const pass = "pass:123456"
	env := append(os.Environ(), "SWPT_CA_DIR="+f.dir)
	openssl := func(args ...string) {
		t.Helper()
		cmd := exec.Command("openssl", args...)
		cmd.Dir, cmd.Env = f.dir, env
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("openssl %q: %v\n%s", args, err, out)
		}
	}
	sign := func(args ...string) {
		t.Helper()
		openssl(append([]string{"ca", "-batch", "-config", "root-ca.conf", "-passin", pass}, args...)...)
	}

	// The root key, in the traditional format.
	f.must(os.Mkdir(f.path("private"), 0o700))
	openssl("genrsa", "-traditional", "-aes128", "-passout", pass, "-out", "private/root-ca.key", "2048")
	if key := f.read("private/root-ca.key"); !strings.Contains(key, "DEK-Info") {
		t.Errorf("this OpenSSL does not write the traditional format: %.40s", key)
	}

	// The authority. Its configuration has the ID of the world's accounting authority.
	serial := make([]byte, 16)
	rand.Read(serial)
	for file, content := range map[string]string{
		"db/nodetype":                 aa.OU() + "\n",
		"db/nodeid":                   w.ids[aa] + "\n",
		"db/index":                    "",
		"db/serial":                   hex.EncodeToString(serial) + "\n",
		"db/crlnumber":                "1001\n",
		"db/subnets/creditors/SEQNUM": "0\n",
		"db/subnets/debtors/SEQNUM":   "-1\n",
		"nodeinfo/stomp.toml":         "servers = [\"aa.example.com:1234\"]\nhost = \"/\"\ndestination = \"/exchange/accounts_in\"\n",
	} {
		f.write(file, content)
	}
	conf, err := os.ReadFile(w.copy(t, aa).path("root-ca.conf"))
	f.must(err)
	f.write("root-ca.conf", string(conf))
	f.must(os.Mkdir(f.path("certs"), 0o755))
	openssl("req", "-new", "-config", "root-ca.conf", "-out", "self.csr", "-key", "private/root-ca.key", "-passin", pass, "-reqexts", "ca_ext")
	sign("-selfsign", "-in", "self.csr", "-out", "root-ca.crt", "-extensions", "ca_ext")
	f.remove("self.csr")
	openssl("req", "-new", "-config", "root-ca.conf", "-out", "db/root-ca.csr", "-key", "private/root-ca.key", "-passin", pass, "-reqexts", "ca_official_ext")

	// A peer, and its peer certificate for this node.
	peer := "peers/" + w.ids[ca] + "/"
	agent := w.copy(t, ca)
	der, err := pki.NewCSR(w.identity(ca), w.keys[w.ids[ca]], pki.RootCSR)
	f.must(err)
	f.write("peer.csr", string(pki.EncodeCSRPEM(der)))
	f.write(peer+"nodetype.txt", ca.OU()+"\n")
	f.write(peer+"queues.txt", "1\n")
	f.write(peer+"root-ca.crt", agent.read("root-ca.crt"))
	f.write(peer+"nodeinfo/stomp.toml", agent.read("nodeinfo/stomp.toml"))
	f.write(peer+"subnet.txt", "000001\n")
	f.write("db/subnets/creditors/000001", w.ids[ca]+"\n")
	f.write("db/subnets/creditors/SEQNUM", "1\n")
	env = append(env, "SWPT_SUBNET=Subnet: 000001", "DN_O="+pki.Organization, "DN_OU="+ca.OU(), "DN_SERIAL_NUMBER="+w.ids[ca])
	sign("-in", "peer.csr", "-out", peer+"peercert.crt", "-extensions", "sub_ca_ext")
	f.remove("peer.csr")
	authority := pki.Authority{Cert: agent.cert("root-ca.crt"), Key: w.keys[w.ids[ca]]}
	received, err := authority.SignPeer(f.cert("root-ca.crt"), "", big.NewInt(12345), time.Now())
	f.must(err)
	f.write(peer+"sub-ca.crt", string(pki.EncodeCertificatePEM(received)))
	f.write(peer+"ACTIVE", "")

	// A server certificate, whose key is not kept in the directory.
	openssl("req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "server.key", "-config", "root-ca.conf", "-out", "server.csr", "-reqexts", "server_official_ext")
	sign("-in", "server.csr", "-out", "server.crt", "-days", "365", "-extensions", "server_ext")
	f.remove("server.csr")
	f.remove("server.key")

	r := f.check(check.Options{Servers: []check.ServerFiles{{Cert: f.path("server.crt")}}})
	if len(r.Findings) > 0 {
		t.Errorf("findings:%s", list(r))
	}
	if len(r.Peers) != 1 || r.Peers[0].State != "active" {
		t.Errorf("peers: %+v", r.Peers)
	}
}
