package infobundle

import (
	"archive/zip"
	"bytes"
	"crypto"
	"errors"
	"io/fs"
	"math/big"
	"strings"
	"testing"
	"time"

	"peerlink/internal/costtest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

var now = time.Now()

// author is a node that makes info-bundles.
type author struct {
	key       crypto.Signer
	root, csr []byte
}

func newAuthor(t testing.TB, kind nodetype.Type) author {
	t.Helper()
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	id := pki.Identity{Type: kind, ID: "1234abcd"}
	if kind.IDDerived() {
		if id.ID, err = pki.DerivedID(key.Public()); err != nil {
			t.Fatal(err)
		}
	}
	root, err := pki.SelfSign(id, key, big.NewInt(1), now)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(id, key, pki.RootCSR)
	if err != nil {
		t.Fatal(err)
	}
	return author{key, pki.EncodeCertificatePEM(root), pki.EncodeCSRPEM(csr)}
}

var nodeinfoFiles = []File{{"about/index.html", []byte("<p>hello")}, {StompTOML, []byte("servers = []")}, {UpdatedAt, []byte("2026-11-23\n")}}

func (a author) bundle(t testing.TB) []byte {
	t.Helper()
	data, err := Create(a.root, a.csr, nodeinfoFiles, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// Read returns the content that was passed to Create.
func TestRoundTrip(t *testing.T) {
	a := newAuthor(t, nodetype.CreditorsAgent)
	b, err := Read(a.bundle(t), now)
	if err != nil {
		t.Fatal(err)
	}
	if b.Identity.Type != nodetype.CreditorsAgent || b.UpdatedAt() != "2026-11-23" || !bytes.Equal(b.RootPEM, a.root) {
		t.Errorf("got %v, %q", b.Identity, b.UpdatedAt())
	}
	if len(b.Nodeinfo) != len(nodeinfoFiles) || string(b.File("about/index.html")) != "<p>hello" || b.File("nothing") != nil {
		t.Errorf("nodeinfo is %v", b.Nodeinfo)
	}
}

// entry is one entry of a zip file made by hand.
type entry struct {
	name string
	data []byte
	mode fs.FileMode
}

// limit returns a pointer to a limit in bytes.
func limit(bytes int) *int { return &bytes }

func zipOf(t testing.TB, entries ...entry) []byte {
	t.Helper()
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, e := range entries {
		h := &zip.FileHeader{Name: e.name, Method: zip.Deflate}
		if strings.HasSuffix(e.name, "/") {
			e.mode |= fs.ModeDir
		}
		h.SetMode(e.mode | 0o644)
		w, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(e.data); err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return buf.Bytes()
}

// signed returns a bundle with the given nodeinfo.zip, which it signs.
func (a author) signed(t testing.TB, inner []byte) []byte {
	t.Helper()
	sig, err := pki.SignData(a.key, inner)
	if err != nil {
		t.Fatal(err)
	}
	return zipOf(t, entry{rootCert, a.root, 0}, entry{rootCSR, a.csr, 0}, entry{nodeinfo, inner, 0}, entry{signature, sig, 0})
}

// Read refuses everything that is not exactly an info-bundle, signed or not.
func TestReadRefuses(t *testing.T) {
	a, other := newAuthor(t, nodetype.CreditorsAgent), newAuthor(t, nodetype.CreditorsAgent)
	good := a.bundle(t)
	toml := entry{StompTOML, []byte("x"), 0}
	inner := zipOf(t, toml)
	sig, err := pki.SignData(a.key, inner)
	if err != nil {
		t.Fatal(err)
	}
	four := func(root, csr, info, sig []byte) []byte {
		return zipOf(t, entry{rootCert, root, 0}, entry{rootCSR, csr, 0}, entry{nodeinfo, info, 0}, entry{signature, sig, 0})
	}
	if _, err := Read(four(a.root, a.csr, inner, sig), now); err != nil {
		t.Fatalf("the bundle from which the cases are derived is refused: %v", err)
	}
	notSelfSigned := func() []byte {
		b, err := Read(other.bundle(t), now)
		if err != nil {
			t.Fatal(err)
		}
		id := pki.Identity{Type: nodetype.AccountingAuthority, ID: "1234abcd"}
		root, err := pki.SelfSign(id, a.key, big.NewInt(1), now)
		if err != nil {
			t.Fatal(err)
		}
		cert, err := (&pki.Authority{Cert: root, Key: a.key}).SignPeer(b.Root, "000001", big.NewInt(2), now)
		if err != nil {
			t.Fatal(err)
		}
		return pki.EncodeCertificatePEM(cert)
	}()
	var many []entry
	for range maxNodeinfoFiles + 1 {
		many = append(many, entry{"f" + strings.Repeat("x", len(many)%50) + string(rune('a'+len(many)%26)) + time.Duration(len(many)).String(), nil, 0})
	}
	bomb := zipOf(t, toml, entry{"bomb", make([]byte, maxUnpacked), 0})

	tests := []struct {
		name string
		data []byte
		want string
	}{
		{"empty", nil, "zip"},
		{"no zip", []byte("hello"), "zip"},
		{"truncated", good[:len(good)/2], "truncated"},
		{"too large", make([]byte, MaxSize+1), "more than"},
		{"missing entry", zipOf(t, entry{rootCert, a.root, 0}), "has no root-ca.csr"},
		{"extra entry", zipOf(t, entry{rootCert, a.root, 0}, entry{rootCSR, a.csr, 0}, entry{nodeinfo, inner, 0}, entry{signature, sig, 0}, entry{"x", nil, 0}), "extra entry \"x\""},
		{"other entry", zipOf(t, entry{rootCert, a.root, 0}, entry{rootCSR, a.csr, 0}, entry{nodeinfo, inner, 0}, entry{"x", nil, 0}), "has no nodeinfo.signature"},
		{"duplicate entry", zipOf(t, entry{rootCert, a.root, 0}, entry{rootCert, a.root, 0}, entry{rootCSR, a.csr, 0}, entry{nodeinfo, inner, 0}), "twice"},
		{"link", zipOf(t, entry{rootCert, a.root, fs.ModeSymlink}), "not a regular file"},
		{"two certificates", four(append(append([]byte{}, a.root...), other.root...), a.csr, inner, sig), rootCert},
		{"certificate not self-signed", four(notSelfSigned, other.csr, inner, sig), rootCert},
		{"another's CSR", four(a.root, other.csr, inner, sig), "another key"},
		{"another's signature", four(other.root, other.csr, inner, sig), "not signed by the root key"},
		{"tampered nodeinfo", four(a.root, a.csr, zipOf(t, entry{StompTOML, []byte("y"), 0}), sig), "not signed by the root key"},
		{"large signature", four(a.root, a.csr, inner, make([]byte, maxSignature+1)), "nodeinfo.signature has"},
		{"CSR where the certificate belongs", four(a.csr, a.root, inner, sig), rootCert},
		{"no stomp.toml", a.signed(t, zipOf(t, entry{"x", nil, 0})), "has no stomp.toml"},
		{"climbing out", a.signed(t, zipOf(t, toml, entry{"../x", nil, 0})), "climbs out"},
		{"climbing within", a.signed(t, zipOf(t, toml, entry{"a/..", nil, 0})), "climbs out"},
		{"absolute", a.signed(t, zipOf(t, toml, entry{"/passwd", nil, 0})), "climbs out"},
		{"backslashes", a.signed(t, zipOf(t, toml, entry{`..\x`, nil, 0})), "other characters"},
		{"drive", a.signed(t, zipOf(t, toml, entry{"c:x", nil, 0})), "other characters"},
		{"control character", a.signed(t, zipOf(t, toml, entry{"a\x1b[2Jb", nil, 0})), "other characters"},
		{"no name", a.signed(t, zipOf(t, toml, entry{"", nil, 0})), "name"},
		{"long name", a.signed(t, zipOf(t, toml, entry{strings.Repeat("x", maxName+1), nil, 0})), "name"},
		{"dot at the end", a.signed(t, zipOf(t, toml, entry{"x.", nil, 0})), "ends in a dot"},
		{"git folder", a.signed(t, zipOf(t, toml, entry{".Git/config", nil, 0})), "begin with a letter"},
		{"link in nodeinfo", a.signed(t, zipOf(t, toml, entry{"x", []byte("/etc/passwd"), fs.ModeSymlink})), "not a regular file"},
		{"same but for case", a.signed(t, zipOf(t, toml, entry{"a", nil, 0}, entry{"A", nil, 0})), "twice"},
		{"manifest but for case", a.signed(t, zipOf(t, toml, entry{"STOMP.TOML", nil, 0})), "must be named stomp.toml"},
		{"file and folder", a.signed(t, zipOf(t, toml, entry{"a", nil, 0}, entry{"A/b", nil, 0})), "both a file and a folder"},
		{"file and empty folder", a.signed(t, zipOf(t, toml, entry{"a", nil, 0}, entry{"a/", nil, 0})), "twice"},
		{"too many files", a.signed(t, zipOf(t, append(many, toml)...)), "more than"},
		{"bomb", a.signed(t, bomb), "more bytes than allowed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := Read(tt.data, now)
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error is %v, want ErrInvalid", err)
			}
			if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error %q does not contain %q", err, tt.want)
			}
		})
	}
}

// For any bytes, Read returns a bundle or ErrInvalid, at a bounded cost and without a panic. An
// accepted bundle has a stomp.toml, and all of its names are valid.
func FuzzRead(f *testing.F) {
	a := newAuthor(f, nodetype.AccountingAuthority)
	f.Add(a.bundle(f))
	f.Add(a.signed(f, zipOf(f, entry{StompTOML, []byte("x"), 0}, entry{"a/", nil, 0}, entry{"../x", nil, 0})))
	f.Fuzz(func(t *testing.T, data []byte) {
		var b *Bundle
		var err error
		costtest.Check(t, "a bundle", func() { b, err = Read(data, now) })
		if err != nil {
			if !errors.Is(err, ErrInvalid) {
				t.Fatalf("error is not ErrInvalid: %v", err)
			}
			return
		}
		if b.File(StompTOML) == nil {
			t.Error("accepted without stomp.toml")
		}
		for _, file := range b.Nodeinfo {
			if !fs.ValidPath(file.Name) {
				t.Errorf("accepted the name %q", file.Name)
			}
		}
	})
}

// The nodeinfo archive is parsed in the same way for every signer, so it is fuzzed
// without the signature. In an accepted archive, archive/zip finds the same files.
func FuzzUnzip(f *testing.F) {
	f.Add(zipOf(f, entry{StompTOML, []byte("x"), 0}, entry{"a/b", []byte("y"), 0}))
	f.Add(zipOf(f, entry{"../x", nil, 0}))
	f.Add(rawZip{entries: []rawEntry{{name: "a", content: "x", extra: "UT\x05\x00\x030000"}, {name: "b/"}}}.bytes(f))
	f.Fuzz(func(t *testing.T, data []byte) {
		var files []File
		var err error
		costtest.Check(t, "an archive", func() { files, err = unzip("archive", data, 10, limit(1<<16)) })
		if err != nil {
			return
		}
		total := 0
		for _, file := range files {
			if !fs.ValidPath(file.Name) || strings.ContainsAny(file.Name, "\\:") {
				t.Errorf("accepted the name %q", file.Name)
			}
			total += len(file.Data)
		}
		if len(files) > 10 || total > 1<<16 {
			t.Errorf("%d files with %d bytes exceed the limits", len(files), total)
		}
		sameAsLibrary(t, data, files)
	})
}
