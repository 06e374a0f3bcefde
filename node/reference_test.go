package node_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/youmark/pkcs8"

	"peerlink/internal/durable"
	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/infobundle"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// The tests in this file work on one directory alternately with two implementations: package node,
// and OpenSSL commands in the same way as the reference scripts (which are not part of this
// repository).

const testPassphrase = "correct horse battery staple"

// hand is an implementation of the operations on a node's directory.
type hand interface {
	init(dir string, t nodetype.Type) error
	bundle(dir, out string) error
	sign(dir, bundle string) error
	register(dir, cert string) error
	serverCert(dir, key, cert string) error
	queues(dir, peer string, n int) error
	deactivate(dir, peer string) error
}

// ours implements hand with this package.
type ours struct{}

func (ours) open(dir string) (*node.Dir, crypto.Signer, error) {
	d, err := node.Open(dir)
	if err != nil {
		return nil, nil, err
	}
	data, err := os.ReadFile(d.DefaultKeyFile())
	if err != nil {
		return nil, nil, err
	}
	// Opening a key is slow by design, so the tests open each key only once.
	if key, ok := opened.Load(string(data)); ok {
		return d, key.(crypto.Signer), nil
	}
	key, err := pki.DecodeKey(data, func() ([]byte, error) { return []byte(testPassphrase), nil })
	if err == nil {
		opened.Store(string(data), key)
	}
	return d, key, err
}

// opened holds root keys by the content of their files.
var opened sync.Map

func (ours) init(dir string, t nodetype.Type) error {
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		return err
	}
	// As in package pki, but with a faster key derivation.
	der, err := pkcs8.MarshalPrivateKey(key, []byte(testPassphrase), &pkcs8.Opts{
		Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 16, IterationCount: 2048, HMACHash: crypto.SHA256},
	})
	if err != nil {
		return err
	}
	encrypted := pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})
	if err := node.WriteKeyFile(node.DefaultKeyFile(dir), encrypted, func([]byte) error { return nil }); err != nil {
		return err
	}
	o := node.InitOptions{Type: t, Servers: []string{"a.example.com:1234"}, Key: key}
	if t == aa {
		o.ID = "1234abcd"
	}
	_, err = node.Init(ctx, dir, o)
	return err
}

func (h ours) bundle(dir, out string) error {
	d, key, err := h.open(dir)
	if err != nil {
		return err
	}
	return d.CreateBundle(ctx, out, key)
}

func (h ours) sign(dir, bundle string) error {
	d, key, err := h.open(dir)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(bundle)
	if err != nil {
		return err
	}
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return err
	}
	_, err = d.SignPeer(ctx, b, func() (crypto.Signer, error) { return key, nil })
	return err
}

func (h ours) register(dir, cert string) error {
	d, err := node.Open(dir)
	if err != nil {
		return err
	}
	data, err := os.ReadFile(cert)
	if err != nil {
		return err
	}
	_, _, err = d.RegisterPeer(ctx, data)
	return err
}

func (h ours) serverCert(dir, keyFile, certFile string) error {
	d, root, err := h.open(dir)
	if err != nil {
		return err
	}
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		return err
	}
	der, err := pki.NewCSR(d.Identity(), key, pki.ServerCSR)
	if err != nil {
		return err
	}
	csr, err := pki.ParseCSRPEM(pki.EncodeCSRPEM(der))
	if err != nil {
		return err
	}
	cert, err := d.SignServer(ctx, root, csr, 365*24*time.Hour)
	if err != nil {
		return err
	}
	pem, err := pki.EncodeKey(key)
	if err != nil {
		return err
	}
	return errors.Join(durable.Create(keyFile, pem, 0o600), durable.Create(certFile, pki.EncodeCertificatePEM(cert), 0o644))
}

func (ours) queues(dir, peer string, n int) error {
	d, err := node.Open(dir)
	if err != nil {
		return err
	}
	return d.SetQueues(ctx, peer, n)
}

func (ours) deactivate(dir, peer string) error {
	d, err := node.Open(dir)
	if err != nil {
		return err
	}
	_, err = d.DeactivatePeer(ctx, peer)
	return err
}

// reference implements hand with OpenSSL.
type reference struct{ passFile string }

// openssl runs a command as the scripts do: with the directory, and the other
// variables that the configuration uses, in the environment.
func (h reference) openssl(dir string, env []string, stdin []byte, args ...string) ([]byte, error) {
	c := exec.Command("openssl", args...)
	abs, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	c.Env = append(append(os.Environ(), "SWPT_CA_DIR="+abs), env...)
	c.Stdin = bytes.NewReader(stdin)
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		return nil, fmt.Errorf("openssl %s: %w\n%s", strings.Join(args, " "), err, errOut.String())
	}
	return out.Bytes(), nil
}

func put(dir, name, content string) error {
	path := filepath.Join(dir, filepath.FromSlash(name))
	return errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), 0o644))
}

func get(elem ...string) (string, error) {
	data, err := os.ReadFile(filepath.Join(elem...))
	return strings.TrimSpace(string(data)), err
}

// firstError runs steps until one fails.
func firstError(steps ...func() error) error {
	for _, step := range steps {
		if err := step(); err != nil {
			return err
		}
	}
	return nil
}

func (h reference) init(dir string, t nodetype.Type) error {
	key, conf := node.DefaultKeyFile(dir), filepath.Join(dir, "root-ca.conf")
	if err := os.MkdirAll(filepath.Join(dir, "private"), 0o700); err != nil {
		return err
	}
	if _, err := h.openssl(dir, nil, nil, "genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-aes-128-cbc", "-pass", "file:"+h.passFile, "-out", key); err != nil {
		return err
	}
	id := pki.Identity{Type: t, ID: "1234abcd"}
	if t.IDDerived() {
		der, err := h.openssl(dir, nil, nil, "pkey", "-in", key, "-passin", "file:"+h.passFile, "-pubout", "-outform", "DER")
		if err != nil {
			return err
		}
		sum, err := h.openssl(dir, nil, der, "dgst", "-sha256", "-r")
		if err != nil {
			return err
		}
		id.ID = string(sum[:32])
	}
	serial, err := h.openssl(dir, nil, nil, "rand", "-hex", "16")
	if err != nil {
		return err
	}
	files := map[string]string{
		"db/nodetype": t.OU() + "\n", "db/nodeid": id.ID + "\n", "db/serial": string(serial), "db/crlnumber": "1001\n", "db/index": "",
		"root-ca.conf":        string(node.RootCAConf(id)),
		"nodeinfo/stomp.toml": fmt.Sprintf("servers = [\"a.example.com:1234\"]\nhost = \"/\"\ndestination = \"/exchange/%s\"\n", t.Inbox()),
	}
	switch t {
	case aa:
		files["db/subnets/debtors/SEQNUM"], files["db/subnets/creditors/SEQNUM"] = "-1\n", "0\n"
	case ca:
		files["creditors-subnet.txt"] = "000001\n"
	}
	for name, content := range files {
		if err := put(dir, name, content); err != nil {
			return err
		}
	}
	for _, sub := range []string{"certs", "peers"} {
		if err := os.MkdirAll(filepath.Join(dir, sub), 0o755); err != nil {
			return err
		}
	}
	csr := filepath.Join(dir, "tmp.csr")
	defer os.Remove(csr)
	return firstError(
		func() error {
			_, err := h.openssl(dir, nil, nil, "req", "-new", "-config", conf, "-key", key, "-passin", "file:"+h.passFile, "-reqexts", "ca_ext", "-out", csr)
			return err
		},
		func() error {
			_, err := h.openssl(dir, nil, nil, "ca", "-batch", "-selfsign", "-config", conf, "-passin", "file:"+h.passFile, "-in", csr, "-out", filepath.Join(dir, "root-ca.crt"), "-extensions", "ca_ext")
			return err
		})
}

func (h reference) bundle(dir, out string) error {
	key, csr := node.DefaultKeyFile(dir), filepath.Join(dir, "db", "root-ca.csr")
	if _, err := os.Stat(csr); err != nil {
		if _, err := h.openssl(dir, nil, nil, "req", "-new", "-config", filepath.Join(dir, "root-ca.conf"), "-key", key, "-passin", "file:"+h.passFile, "-reqexts", "ca_official_ext", "-out", csr); err != nil {
			return err
		}
	}
	if err := put(dir, "nodeinfo/updated-at.txt", time.Now().Format(time.DateOnly)+"\n"); err != nil {
		return err
	}
	inner, outer := filepath.Join(out+".d", "nodeinfo.zip"), out
	if err := os.MkdirAll(filepath.Dir(inner), 0o755); err != nil {
		return err
	}
	if err := zipFiles(inner, filepath.Join(dir, "nodeinfo", "stomp.toml"), filepath.Join(dir, "nodeinfo", "updated-at.txt")); err != nil {
		return err
	}
	sig := filepath.Join(out+".d", "nodeinfo.signature")
	if _, err := h.openssl(dir, nil, nil, "dgst", "-sha256", "-sign", key, "-passin", "file:"+h.passFile, "-out", sig, inner); err != nil {
		return err
	}
	return zipFiles(outer, filepath.Join(dir, "root-ca.crt"), csr, inner, sig)
}

// zipFiles makes a zip file of files, without their folders.
func zipFiles(out string, files ...string) error {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, path := range files {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		w, err := z.Create(filepath.Base(path))
		if err != nil {
			return err
		}
		if _, err := w.Write(data); err != nil {
			return err
		}
	}
	return errors.Join(z.Close(), os.WriteFile(out, buf.Bytes(), 0o644))
}

// unzipFiles unpacks a zip file.
func unzipFiles(path, dir string) error {
	z, err := zip.OpenReader(path)
	if err != nil {
		return err
	}
	defer z.Close()
	for _, e := range z.File {
		r, err := e.Open()
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		if err := put(dir, e.Name, string(data)); err != nil {
			return err
		}
	}
	return nil
}

func (h reference) sign(dir, bundle string) error {
	tmp, err := os.MkdirTemp("", "reference")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	in := func(name string) string { return filepath.Join(tmp, name) }
	if err := unzipFiles(bundle, tmp); err != nil {
		return err
	}
	pub, err := h.openssl(dir, nil, nil, "x509", "-in", in("root-ca.crt"), "-noout", "-pubkey")
	if err != nil {
		return err
	}
	reqPub, err := h.openssl(dir, nil, nil, "req", "-in", in("root-ca.csr"), "-noout", "-pubkey")
	if err != nil {
		return err
	}
	if !bytes.Equal(pub, reqPub) {
		return errors.New("CSR and certificate have different keys")
	}
	if err := os.WriteFile(in("pub"), pub, 0o600); err != nil {
		return err
	}
	subject, err := h.openssl(dir, nil, nil, "req", "-in", in("root-ca.csr"), "-noout", "-subject", "-nameopt", "multiline")
	if err != nil {
		return err
	}
	field := func(name string) string {
		_, after, _ := strings.Cut(string(subject), name)
		line, _, _ := strings.Cut(after, "\n")
		return strings.TrimLeft(line, " =")
	}
	peer := filepath.Join(dir, "peers", field("serialNumber"))
	for _, args := range [][]string{
		{"verify", "-check_ss_sig", "-trusted", in("root-ca.crt"), in("root-ca.crt")},
		{"dgst", "-sha256", "-verify", in("pub"), "-signature", in("nodeinfo.signature"), in("nodeinfo.zip")},
	} {
		if _, err := h.openssl(dir, nil, nil, args...); err != nil {
			return err
		}
	}
	env := []string{"DN_O=" + field("organizationName"), "DN_OU=" + field("organizationalUnitName"), "DN_SERIAL_NUMBER=" + field("serialNumber")}
	if own, _ := get(dir, "db", "nodetype"); own == aa.OU() {
		subnet, err := h.reserve(dir, field("organizationalUnitName"), field("serialNumber"))
		if err != nil {
			return err
		}
		if err := put(peer, "subnet.txt", subnet+"\n"); err != nil {
			return err
		}
		env = append(env, "SWPT_SUBNET=Subnet: "+subnet)
	}
	root, err := os.ReadFile(in("root-ca.crt"))
	if err != nil {
		return err
	}
	return firstError(
		func() error { return put(peer, "nodetype.txt", field("organizationalUnitName")+"\n") },
		func() error { return put(peer, "queues.txt", "1\n") },
		func() error { return put(peer, "root-ca.crt", string(root)) },
		func() error { return unzipFiles(in("nodeinfo.zip"), filepath.Join(peer, "nodeinfo")) },
		func() error {
			_, err := h.openssl(dir, env, nil, "ca", "-batch", "-config", filepath.Join(dir, "root-ca.conf"), "-passin", "file:"+h.passFile,
				"-in", in("root-ca.csr"), "-out", filepath.Join(peer, "peercert.crt"), "-extensions", "sub_ca_ext")
			return err
		})
}

// reserve takes the next free subnet by exclusive creation of its file.
func (h reference) reserve(dir, ou, id string) (string, error) {
	pool, format, prefix := "creditors", "%06x", ""
	if ou == da.OU() {
		pool, format, prefix = "debtors", "%02x", "1234abcd"
	}
	pool = filepath.Join(dir, "db", "subnets", pool)
	s, err := get(pool, "SEQNUM")
	if err != nil {
		return "", err
	}
	n, err := strconv.Atoi(s)
	if err != nil {
		return "", err
	}
	for {
		n++
		subnet := prefix + fmt.Sprintf(format, n)
		f, err := os.OpenFile(filepath.Join(pool, subnet), os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
		if errors.Is(err, os.ErrExist) {
			continue
		}
		if err != nil {
			return "", err
		}
		fmt.Fprintln(f, id)
		return subnet, errors.Join(f.Close(), put(pool, "SEQNUM", fmt.Sprintln(n)))
	}
}

func (h reference) register(dir, cert string) error {
	issuer, err := h.openssl(dir, nil, nil, "x509", "-in", cert, "-noout", "-issuer", "-nameopt", "multiline")
	if err != nil {
		return err
	}
	_, after, _ := strings.Cut(string(issuer), "serialNumber")
	id := strings.Trim(strings.SplitN(after, "\n", 2)[0], " =")
	peer := filepath.Join(dir, "peers", id)
	if _, err := h.openssl(dir, nil, nil, "verify", "-trusted", filepath.Join(peer, "root-ca.crt"), cert); err != nil {
		return err
	}
	text, err := h.openssl(dir, nil, nil, "x509", "-in", cert, "-noout", "-ext", "nsComment")
	if err != nil {
		return err
	}
	subnet := ""
	if _, after, ok := strings.Cut(string(text), "Subnet: "); ok {
		subnet = strings.TrimSpace(after)
	}
	own, err := get(dir, "db", "nodetype")
	if err != nil {
		return err
	}
	switch {
	case own != aa.OU() && subnet == "":
		return errors.New("no subnet in the certificate")
	case own == ca.OU():
		err = put(peer, "masq-subnet.txt", subnet+"\n")
	case own == da.OU():
		err = put(dir, "debtors-subnet.txt", subnet+"\n")
	}
	data, readErr := os.ReadFile(cert)
	return errors.Join(err, readErr, put(peer, "sub-ca.crt", string(data)))
}

func (h reference) serverCert(dir, key, cert string) error {
	conf, csr := filepath.Join(dir, "root-ca.conf"), cert+".csr"
	if _, err := h.openssl(dir, nil, nil, "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-config", conf, "-out", csr, "-keyout", key, "-reqexts", "server_official_ext"); err != nil {
		return err
	}
	_, err := h.openssl(dir, nil, nil, "ca", "-batch", "-config", conf, "-passin", "file:"+h.passFile, "-in", csr, "-out", cert, "-days", "365", "-extensions", "server_ext")
	return err
}

func (reference) queues(dir, peer string, n int) error {
	return put(dir, "peers/"+peer+"/queues.txt", fmt.Sprintln(n))
}

func (reference) deactivate(dir, peer string) error {
	return put(dir, "peers/"+peer+"/DEACTIVATED", time.Now().Format(time.DateOnly)+"\n")
}

// The result does not depend on which implementation does which step on the same directories: two
// nodes that are peers, directories without defects, and chains that both OpenSSL and this package
// accept.
func TestTwoHands(t *testing.T) {
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: its alternating use of a node's directory is not tested")
	}
	passFile := filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(passFile, []byte(testPassphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	hands := []hand{ours{}, reference{passFile}}
	// Each bit of a pattern selects the implementation of a step: alternating patterns, and some
	// irregular ones, so that every step is done by both implementations.
	for agent, patterns := range map[nodetype.Type][]uint32{
		ca: {0x55555, 0xAAAAA, 0x3A5C6},
		da: {0xC5A39, 0x0F0F0, 0xFFFFF},
	} {
		for _, pattern := range patterns {
			t.Run(fmt.Sprintf("%s %05x", agent.Short(), pattern), func(t *testing.T) {
				t.Parallel()
				steps := 0
				turn := func(do func(h hand) error) {
					t.Helper()
					h := hands[pattern>>steps&1]
					if err := do(h); err != nil {
						t.Fatalf("step %d, by %T: %v", steps, h, err)
					}
					steps++
				}
				base := t.TempDir()
				a, b := filepath.Join(base, "a"), filepath.Join(base, "b")
				out := func(name string) string { return filepath.Join(base, name) }
				turn(func(h hand) error { return h.init(a, aa) })
				turn(func(h hand) error { return h.init(b, agent) })
				turn(func(h hand) error { return h.serverCert(a, out("a1.key"), out("a1.crt")) })
				turn(func(h hand) error { return h.bundle(a, out("a.zip")) })
				turn(func(h hand) error { return h.bundle(b, out("b.zip")) })
				turn(func(h hand) error { return h.sign(a, out("b.zip")) })
				turn(func(h hand) error { return h.sign(b, out("a.zip")) })
				idA, idB := "1234abcd", read(t, b, "db", "nodeid")
				idB = strings.TrimSpace(idB)
				turn(func(h hand) error { return h.register(b, filepath.Join(a, "peers", idB, "peercert.crt")) })
				turn(func(h hand) error { return h.register(a, filepath.Join(b, "peers", idA, "peercert.crt")) })
				turn(func(h hand) error { return h.serverCert(b, out("b1.key"), out("b1.crt")) })
				turn(func(h hand) error { return h.serverCert(a, out("a2.key"), out("a2.crt")) })
				// A lost root certificate is restored byte by byte, because the scripts compare its bytes.
				for _, dir := range []string{a, b} {
					root := read(t, dir, "root-ca.crt")
					remove(t, dir, "root-ca.crt")
					if _, err := node.Restore(ctx, dir); err != nil {
						t.Fatal(err)
					}
					if read(t, dir, "root-ca.crt") != root {
						t.Errorf("%s: root-ca.crt has changed", dir)
					}
				}
				// A second peer, so that counters continue from the values that the other implementation
				// has left.
				c := filepath.Join(base, "c")
				turn(func(h hand) error { return h.init(c, agent) })
				turn(func(h hand) error { return h.bundle(c, out("c.zip")) })
				turn(func(h hand) error { return h.sign(a, out("c.zip")) })
				turn(func(h hand) error { return h.queues(a, idB, 3) })
				turn(func(h hand) error { return h.serverCert(b, out("b2.key"), out("b2.crt")) })

				for _, dir := range []string{a, b, c} {
					noProblem(t, dir)
				}
				now := time.Now()
				for _, name := range []string{"b1.crt", "b2.crt"} {
					chain := [][]byte{certOf(t, out(name)), certOf(t, a, "peers", idB, "peercert.crt")}
					d, err := node.Open(a)
					if err != nil {
						t.Fatal(err)
					}
					if id, _, err := pki.VerifyClient(chain, d.Root(), now); err != nil || id.ID != idB {
						t.Errorf("%s: %v, %v", name, id, err)
					}
					if _, err := (reference{}).openssl(a, nil, nil, "verify", "-trusted", filepath.Join(a, "root-ca.crt"),
						"-untrusted", filepath.Join(a, "peers", idB, "peercert.crt"), out(name)); err != nil {
						t.Error(err)
					}
				}
				turn(func(h hand) error { return h.deactivate(a, idB) })
				d, err := node.Open(a)
				if err != nil {
					t.Fatal(err)
				}
				if p, err := d.Peer(idB); err != nil || p.State() != "deactivated" || p.Queues != 3 {
					t.Errorf("peer is %+v, %v", p, err)
				}
				noProblem(t, a)
			})
		}
	}
}

func noProblem(t *testing.T, dir string) {
	t.Helper()
	r, err := check.Run(context.Background(), dir, check.Options{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range r.Findings {
		if f.Severity == check.Problem {
			t.Errorf("%s: %v", filepath.Base(dir), f)
		}
	}
}

// certOf reads the DER of a certificate file.
func certOf(t *testing.T, elem ...string) []byte {
	t.Helper()
	cert, err := pki.ParseCertificatePEM([]byte(read(t, elem...)))
	if err != nil {
		t.Fatal(err)
	}
	return cert.Raw
}
