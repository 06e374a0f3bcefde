package check_test

import (
	"bytes"
	"context"
	"crypto"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

var ctx = context.Background()

// world has the directories of three nodes that peerlink has made and that are
// peers. A check of them finds nothing. Tests work on copies of these directories.
type world struct {
	dirs map[nodetype.Type]string
	ids  map[nodetype.Type]string
	keys map[string]crypto.Signer // root keys, by node ID
}

const (
	aa = nodetype.AccountingAuthority
	ca = nodetype.CreditorsAgent
	da = nodetype.DebtorsAgent
)

var (
	worldDir  string // removed at the end of all tests
	worldOnce sync.Once
	theWorld  *world
)

func TestMain(m *testing.M) {
	var err error
	if worldDir, err = os.MkdirTemp("", "check-test-"); err != nil {
		panic(err)
	}
	code := m.Run()
	os.RemoveAll(worldDir)
	os.Exit(code)
}

// newWorld returns the world, which is made at the first call and not changed later.
func newWorld(t *testing.T) *world {
	t.Helper()
	worldOnce.Do(func() { theWorld = makeWorld(t) })
	if theWorld == nil {
		t.Fatal("the world could not be made")
	}
	return theWorld
}

func makeWorld(t *testing.T) *world {
	w := &world{make(map[nodetype.Type]string), make(map[nodetype.Type]string), make(map[string]crypto.Signer)}
	// Making and opening key files is slow by design, and not tested here: one file
	// is used for all three nodes.
	keyFile, err := pki.EncodeEncryptedKey(otherKey(t), []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	nodes := make(map[nodetype.Type]*nodetest.Node)
	for _, kind := range nodetype.All {
		n := nodetest.NewWithKey(t, filepath.Join(worldDir, kind.Short()), kind, "stomp.example.com:1234", otherKey(t))
		nodes[kind], w.dirs[kind], w.ids[kind], w.keys[n.Identity().ID] = n, n.Path(), n.Identity().ID, n.Key
		if err := node.WriteKeyFile(n.DefaultKeyFile(), keyFile, func([]byte) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	nodetest.Peer(t, nodes[aa], nodes[ca])
	nodetest.Peer(t, nodes[aa], nodes[da])
	for kind, n := range nodes {
		n.WriteServerCert(t, filepath.Join(t.TempDir(), "server.crt"), filepath.Join(t.TempDir(), "server.key"), 365*24*time.Hour)
		for other := range nodes {
			if kind.CanPeer(other) {
				if err := n.MarkActive(w.ids[other]); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return w
}

// fixture is a copy of one node's directory.
type fixture struct {
	*testing.T
	*world
	dir string
}

func (w *world) copy(t *testing.T, kind nodetype.Type) *fixture {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "node")
	if err := os.CopyFS(dir, os.DirFS(w.dirs[kind])); err != nil {
		t.Fatal(err)
	}
	f := &fixture{t, w, dir}
	f.chmod("private", 0o700)
	f.chmod("private/root-ca.key", 0o600)
	return f
}

func (f *fixture) check(o check.Options) *check.Report {
	f.Helper()
	report, err := check.Run(ctx, f.dir, o)
	if err != nil {
		f.Fatal(err)
	}
	return report
}

func (f *fixture) path(file string) string { return filepath.Join(f.dir, filepath.FromSlash(file)) }

func (f *fixture) must(err error) {
	f.Helper()
	if err != nil {
		f.Fatal(err)
	}
}

func (f *fixture) read(file string) string {
	f.Helper()
	data, err := os.ReadFile(f.path(file))
	f.must(err)
	return string(data)
}

func (f *fixture) write(file, content string) {
	f.Helper()
	f.must(os.MkdirAll(filepath.Dir(f.path(file)), 0o755))
	f.must(os.WriteFile(f.path(file), []byte(content), 0o644))
}

func (f *fixture) replace(file, old, new string) {
	f.Helper()
	content := f.read(file)
	if !strings.Contains(content, old) {
		f.Fatalf("%s does not contain %q", file, old)
	}
	f.write(file, strings.Replace(content, old, new, 1))
}

func (f *fixture) remove(file string) { f.Helper(); f.must(os.RemoveAll(f.path(file))) }

func (f *fixture) rename(from, to string) { f.Helper(); f.must(os.Rename(f.path(from), f.path(to))) }

func (f *fixture) chmod(file string, mode fs.FileMode) {
	f.Helper()
	f.must(os.Chmod(f.path(file), mode))
}

func (f *fixture) cert(file string) *x509.Certificate {
	f.Helper()
	cert, err := pki.ParseCertificatePEM([]byte(f.read(file)))
	f.must(err)
	return cert
}

// serverCopy returns the path of the server certificate in certs/.
func (f *fixture) serverCopy() string {
	f.Helper()
	for _, file := range f.glob("certs/*.pem") {
		if !f.cert(file).IsCA {
			return file
		}
	}
	f.Fatal("no server certificate in certs/")
	return ""
}

// issueServer makes a creditors agent's server certificate, outside of its
// directory.
func (f *fixture) issueServer() (certFile, keyFile string) {
	f.Helper()
	d, err := node.Open(f.dir)
	f.must(err)
	key := otherKey(f)
	der, err := pki.NewCSR(d.Identity(), key, pki.ServerCSR)
	f.must(err)
	csr, err := pki.ParseCSRPEM(pki.EncodeCSRPEM(der))
	f.must(err)
	cert, err := d.SignServer(ctx, f.keys[f.ids[ca]], csr, 100*day)
	f.must(err)
	dir := f.TempDir()
	certFile, keyFile = filepath.Join(dir, "server.crt"), filepath.Join(dir, "server.key")
	f.must(os.WriteFile(certFile, pki.EncodeCertificatePEM(cert), 0o644))
	f.must(os.WriteFile(keyFile, []byte(encodeKey(f, key)), 0o600))
	return certFile, keyFile
}

func (f *fixture) glob(pattern string) (files []string) {
	f.Helper()
	paths, err := filepath.Glob(f.path(pattern))
	f.must(err)
	for _, path := range paths {
		rel, err := filepath.Rel(f.dir, path)
		f.must(err)
		files = append(files, filepath.ToSlash(rel))
	}
	return files
}

// files lists all files.
func (f *fixture) files() (files []string) {
	f.Helper()
	f.must(filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			rel, _ := filepath.Rel(f.dir, path)
			files = append(files, filepath.ToSlash(rel))
		}
		return err
	}))
	return files
}

// snapshot returns a hash of all names, modes, times and contents.
func (f *fixture) snapshot() string {
	f.Helper()
	h := sha256.New()
	f.must(filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		fmt.Fprintln(h, path, fi.Mode(), fi.ModTime(), fi.Size())
		if fi.Mode().IsRegular() {
			data, err := os.ReadFile(path)
			h.Write(data)
			return err
		}
		return nil
	}))
	return string(h.Sum(nil))
}

// recipe holds the parts of which a certificate is made.
type recipe struct {
	*x509.Certificate
	pub    crypto.PublicKey
	signer crypto.Signer
	issuer []byte // name, in DER
	tbs    func([]byte) []byte
}

// reissue changes a certificate and signs it again. The new certificate replaces the
// old one everywhere, also in certs/ and db/index, so that only the certificate
// itself is wrong.
func (f *fixture) reissue(file string, change func(r *recipe)) {
	f.Helper()
	old := f.cert(file)
	template := *old
	template.ExtraExtensions = slices.Clone(old.Extensions)
	issuer, err := pki.IdentityOf(old.RawIssuer)
	f.must(err)
	r := &recipe{Certificate: &template, pub: old.PublicKey, signer: f.keys[issuer.ID], issuer: old.RawIssuer}
	template.SignatureAlgorithm = 0
	// The new certificate gets only the extensions in ExtraExtensions.
	template.IsCA, template.BasicConstraintsValid, template.SubjectKeyId, template.AuthorityKeyId = false, false, nil, nil
	template.KeyUsage, template.ExtKeyUsage, template.UnknownExtKeyUsage = 0, nil, nil
	change(r)
	parent := &x509.Certificate{RawSubject: r.issuer, PublicKey: r.signer.Public()}
	der, err := x509.CreateCertificate(rand.Reader, r.Certificate, parent, r.pub, r.signer)
	f.must(err)
	if r.tbs != nil {
		der = f.resign(der, r.tbs, r.signer)
	}
	cert, err := x509.ParseCertificate(der)
	f.must(err)
	f.exchange(old, cert)
}

// resign changes the signed part of a certificate, as bytes, and signs it again.
func (f *fixture) resign(der []byte, change func([]byte) []byte, signer crypto.Signer) []byte {
	f.Helper()
	var c struct {
		TBS       asn1.RawValue
		Algorithm pkix.AlgorithmIdentifier
		Signature asn1.BitString
	}
	_, err := asn1.Unmarshal(der, &c)
	f.must(err)
	tbs := change(bytes.Clone(c.TBS.FullBytes))
	sum := sha256.Sum256(tbs)
	sig, err := signer.Sign(rand.Reader, sum[:], crypto.SHA256)
	f.must(err)
	c.TBS, c.Signature = asn1.RawValue{FullBytes: tbs}, asn1.BitString{Bytes: sig, BitLength: 8 * len(sig)}
	der, err = asn1.Marshal(c)
	f.must(err)
	return der
}

func (f *fixture) exchange(old, cert *x509.Certificate) {
	f.Helper()
	f.must(filepath.WalkDir(f.dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if c, err := pki.ParseCertificatePEM(data); err != nil || !bytes.Equal(c.Raw, old.Raw) {
			return nil
		}
		return os.WriteFile(path, pki.EncodeCertificatePEM(cert), 0o644)
	}))
	serial := func(c *x509.Certificate) string {
		s := fmt.Sprintf("%X", c.SerialNumber)
		return strings.Repeat("0", len(s)%2) + s
	}
	if before := "certs/" + serial(old) + ".pem"; len(f.glob(before)) == 1 && serial(old) != serial(cert) {
		f.rename(before, "certs/"+serial(cert)+".pem")
	}
	if line, err := node.IndexLine(old); err == nil && strings.Contains(f.read("db/index"), line) {
		if changed, err := node.IndexLine(cert); err == nil {
			f.replace("db/index", line, changed)
		}
	}
}

// The extensions that tests change.
var (
	subjectKeyID     = asn1.ObjectIdentifier{2, 5, 29, 14}
	keyUsage         = asn1.ObjectIdentifier{2, 5, 29, 15}
	basicConstraints = asn1.ObjectIdentifier{2, 5, 29, 19}
	nameConstraints  = asn1.ObjectIdentifier{2, 5, 29, 30}
	authorityKeyID   = asn1.ObjectIdentifier{2, 5, 29, 35}
	extKeyUsage      = asn1.ObjectIdentifier{2, 5, 29, 37}
	netscapeComment  = asn1.ObjectIdentifier{2, 16, 840, 1, 113730, 1, 13}
)

// Values of extensions.
var (
	caPathLen0   = []byte{0x30, 6, 0x01, 1, 0xff, 0x02, 1, 0}
	caNoPathLen  = []byte{0x30, 3, 0x01, 1, 0xff}
	notCA        = []byte{0x30, 0}
	certSignOnly = []byte{0x03, 2, 2, 0b0000_0100}
	crlSign      = []byte{0x03, 2, 1, 0b0000_0010}
	signOnly     = []byte{0x03, 2, 7, 0b1000_0000}
	clientAuth   = []byte("\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x02")
	serverAuth   = []byte("\x06\x08\x2b\x06\x01\x05\x05\x07\x03\x01")
)

// tlv encodes a value, shorter than 256 bytes, as DER.
func tlv(tag byte, parts ...[]byte) []byte {
	content := bytes.Join(parts, nil)
	if len(content) < 128 {
		return append([]byte{tag, byte(len(content))}, content...)
	}
	return append([]byte{tag, 0x81, byte(len(content))}, content...)
}

func sequence(parts ...[]byte) []byte { return tlv(0x30, parts...) }

// directoryName encodes a name as a GeneralName.
func directoryName(name []byte) []byte { return tlv(0xa4, name) }

// drop removes an extension, set adds one or changes its value, and flip changes
// whether it is critical.
func drop(oid asn1.ObjectIdentifier) func(*recipe) {
	return func(r *recipe) {
		r.ExtraExtensions = slices.DeleteFunc(r.ExtraExtensions, func(e pkix.Extension) bool { return e.Id.Equal(oid) })
	}
}

func set(oid asn1.ObjectIdentifier, value []byte) func(*recipe) {
	return func(r *recipe) {
		for i, e := range r.ExtraExtensions {
			if e.Id.Equal(oid) {
				r.ExtraExtensions[i].Value = value
				return
			}
		}
		r.ExtraExtensions = append(r.ExtraExtensions, pkix.Extension{Id: oid, Value: value})
	}
}

func flip(oid asn1.ObjectIdentifier) func(*recipe) {
	return func(r *recipe) {
		for i, e := range r.ExtraExtensions {
			if e.Id.Equal(oid) {
				r.ExtraExtensions[i].Critical = !e.Critical
			}
		}
	}
}

func comment(text string) func(*recipe) {
	return set(netscapeComment, append([]byte{0x16, byte(len(text))}, text...))
}

// otherKey returns a new key, which no node has.
func otherKey(t testing.TB) crypto.Signer {
	t.Helper()
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func encodeKey(t testing.TB, key crypto.Signer) string {
	t.Helper()
	data, err := pki.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// rules returns the rules of all findings with the severity least or a higher one,
// sorted, each once.
func rules(r *check.Report, least check.Severity) []check.Rule {
	set := make(map[check.Rule]bool)
	for _, f := range r.Findings {
		if f.Severity >= least {
			set[f.Rule] = true
		}
	}
	return slices.Sorted(maps.Keys(set))
}

func list(r *check.Report) string {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n\t%v", f)
	}
	return b.String()
}

func decodeBase64(t testing.TB, s string) string {
	t.Helper()
	data, err := base64.StdEncoding.DecodeString(strings.ReplaceAll(s, "\n", ""))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}
