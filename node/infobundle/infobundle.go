// Package infobundle writes and checks info-bundles, the files with which
// Swaptacular nodes introduce themselves to each other.
//
// An info-bundle is a zip file with exactly four entries:
//
//	root-ca.crt         the node's self-signed root certificate
//	root-ca.csr         a certificate signing request by the root key
//	nodeinfo.zip        what the node says about itself; stomp.toml in it is required
//	nodeinfo.signature  the root key's signature over the bytes of nodeinfo.zip
//
// An info-bundle comes from strangers. [Read] accepts it only as a whole: both
// certificates, both signatures, the name, every file name and every size are
// checked before anything is handed out, and nothing is written anywhere.
// What a bundle can not prove is that its sender is who the reader thinks it
// is: for creditors agents and debtors agents the node ID is derived from the
// key, for an accounting authority a person must compare the fingerprint.
package infobundle

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"sort"
	"strings"
	"time"

	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
	"peerlink/node/pki"
)

// Bounds on an info-bundle, which keep what [Read] needs below 32 MiB and half a
// second. A usual one has about 10 KiB.
const (
	MaxSize = 512 << 10 // bytes of the bundle file
	// MaxUnpacked is the most bytes that the entries of a bundle, and of the
	// nodeinfo.zip in it, may have together when they are unpacked.
	MaxUnpacked     = 2 << 20
	maxEntries      = 8        // read before the four are looked for, so that an extra one can be named
	maxCertificate  = 64 << 10 // bytes of root-ca.crt and of root-ca.csr
	maxSignature    = 8 << 10
	maxNodeinfoZip  = MaxSize
	maxNodeinfoFile = 200 // files in nodeinfo.zip
)

// The entries of an info-bundle.
const (
	rootCert  = "root-ca.crt"
	rootCSR   = "root-ca.csr"
	nodeinfo  = "nodeinfo.zip"
	signature = "nodeinfo.signature"
)

// Names of nodeinfo files that have a meaning.
const (
	StompTOML = "stomp.toml"     // the STOMP servers manifest, required
	UpdatedAt = "updated-at.txt" // when the bundle was made; orders bundles by age
)

// ErrInvalid is wrapped by every error that [Read] returns.
var ErrInvalid = errors.New("invalid info-bundle")

// A File is one nodeinfo file. Name is a relative slash-separated path.
type File struct {
	Name string
	Data []byte
}

// Bundle is an info-bundle that has passed every check.
type Bundle struct {
	Identity pki.Identity
	Root     *x509.Certificate
	RootPEM  []byte // root-ca.crt as it came: tools compare it byte by byte
	Nodeinfo []File // sorted by name
}

// File returns the content of a nodeinfo file, nil if there is none of that name.
func (b *Bundle) File(name string) []byte {
	for _, f := range b.Nodeinfo {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// UpdatedAt is the bundle's date, the content of updated-at.txt. Two bundles
// of one node are compared by it as strings; the later one wins. It is empty
// if the bundle carries none.
func (b *Bundle) UpdatedAt() string { return DateOf(b.File(UpdatedAt)) }

// Create makes an info-bundle: root certificate and CSR in PEM, the nodeinfo
// files, and the root key's signature over them.
func Create(rootPEM, csrPEM []byte, files []File, key crypto.Signer) ([]byte, error) {
	inner, sig, err := Sign(files, key)
	if err != nil {
		return nil, err
	}
	return Assemble(rootPEM, csrPEM, inner, sig)
}

// Sign makes the part of an info-bundle that needs the root key: nodeinfo.zip
// and the signature over its bytes.
func Sign(files []File, key crypto.Signer) (nodeinfoZip, sig []byte, err error) {
	if err := CheckFiles(files); err != nil {
		return nil, nil, fmt.Errorf("nodeinfo: %w", err)
	}
	var inner bytes.Buffer
	if err := writeZip(&inner, files); err != nil {
		return nil, nil, err
	}
	if sig, err = pki.SignData(key, inner.Bytes()); err != nil {
		return nil, nil, fmt.Errorf("sign nodeinfo: %w", err)
	}
	return inner.Bytes(), sig, nil
}

// Assemble makes an info-bundle of its four parts, and checks it as [Read] does.
func Assemble(rootPEM, csrPEM, nodeinfoZip, sig []byte) ([]byte, error) {
	var outer bytes.Buffer
	err := writeZip(&outer, []File{
		{rootCert, rootPEM},
		{rootCSR, csrPEM},
		{nodeinfo, nodeinfoZip},
		{signature, sig},
	})
	if err != nil {
		return nil, err
	}
	// What the reader would refuse must not leave the house.
	if _, err := Read(outer.Bytes(), time.Now()); err != nil {
		return nil, err
	}
	return outer.Bytes(), nil
}

// Read checks an info-bundle and returns what it holds ("Info-bundle" and step
// 2 of "Becoming peers" in the specification). Every error wraps [ErrInvalid].
func Read(data []byte, now time.Time) (*Bundle, error) {
	left := MaxUnpacked
	return ReadWithin(data, now, &left)
}

// ReadWithin is [Read] for one of several bundles that may unpack to a number of bytes
// together as left says, which it reduces.
func ReadWithin(data []byte, now time.Time, left *int) (*Bundle, error) {
	b, err := read(data, now, left)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	return b, nil
}

func read(data []byte, now time.Time, left *int) (*Bundle, error) {
	if textfile.HasMark(data) {
		return nil, errors.New("it begins with a byte order mark, so it was written as text, and is damaged: get a copy of the file as it was made (PowerShell's \">\" does not make one)")
	}
	if len(data) > MaxSize {
		return nil, fmt.Errorf("it has more than %d bytes", MaxSize)
	}
	parts, err := unzip("the bundle", data, maxEntries, left)
	if err != nil {
		return nil, err
	}
	part := make(map[string][]byte, 4)
	for _, f := range parts {
		part[f.Name] = f.Data
	}
	for _, p := range []struct {
		name string
		max  int
	}{{rootCert, maxCertificate}, {rootCSR, maxCertificate}, {nodeinfo, maxNodeinfoZip}, {signature, maxSignature}} {
		d, ok := part[p.name]
		if !ok {
			return nil, fmt.Errorf("it has no %s; expected exactly %s, %s, %s and %s", p.name, rootCert, rootCSR, nodeinfo, signature)
		}
		if len(d) > p.max {
			return nil, fmt.Errorf("%s has %d bytes, more than %d", p.name, len(d), p.max)
		}
		delete(part, p.name)
	}
	for name := range part {
		return nil, fmt.Errorf("it has an extra entry %q; expected exactly %s, %s, %s and %s", name, rootCert, rootCSR, nodeinfo, signature)
	}
	for _, f := range parts {
		part[f.Name] = f.Data
	}

	b := &Bundle{RootPEM: part[rootCert]}
	if b.Root, err = pki.ParseCertificatePEM(b.RootPEM); err != nil {
		return nil, fmt.Errorf("%s: %w", rootCert, err)
	}
	if b.Identity, err = pki.CheckRoot(b.Root, now); err != nil {
		return nil, fmt.Errorf("%s: %w", rootCert, err)
	}
	csr, err := pki.ParseCSRPEM(part[rootCSR])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rootCSR, err)
	}
	if !bytes.Equal(csr.RawSubjectPublicKeyInfo, b.Root.RawSubjectPublicKeyInfo) {
		return nil, fmt.Errorf("%s is for another key than %s", rootCSR, rootCert)
	}
	if !bytes.Equal(csr.RawSubject, b.Root.RawSubject) {
		return nil, fmt.Errorf("%s is for another subject than %s", rootCSR, rootCert)
	}
	if err := pki.VerifyData(b.Root.PublicKey, part[nodeinfo], part[signature]); err != nil {
		return nil, fmt.Errorf("%s is not signed by the root key: %w", nodeinfo, err)
	}
	if b.Nodeinfo, err = unzip(nodeinfo, part[nodeinfo], maxNodeinfoFile, left); err != nil {
		return nil, err
	}
	if b.File(StompTOML) == nil {
		return nil, fmt.Errorf("%s has no %s", nodeinfo, StompTOML)
	}
	if date := b.File(UpdatedAt); date != nil {
		if err := CheckDate(strings.TrimSpace(string(date)), now); err != nil {
			return nil, fmt.Errorf("%s in %s: %w; the bundle's owner has to make a new one", UpdatedAt, nodeinfo, err)
		}
	}
	return b, nil
}

// unzip reads a plain zip file in memory: regular files with tame, distinct names,
// at most maxFiles of them with at most *left bytes together, by which it reduces *left.
func unzip(what string, data []byte, maxFiles int, left *int) ([]File, error) {
	entries, err := plainEntries(data, 2*maxFiles)
	if err != nil {
		return nil, fmt.Errorf("%s is not a plain zip file: %w", what, err)
	}
	var files []File
	seen := make(map[string]bool)
	for _, e := range entries {
		if err := checkName(strings.TrimSuffix(e.name, "/")); err != nil {
			return nil, fmt.Errorf("%s: entry %q %w%s", what, excerpt.Of(e.name), err, renameIt)
		}
		// Names that differ only in case are one file on some machines.
		key := strings.ToLower(strings.TrimSuffix(e.name, "/"))
		if seen[key] {
			return nil, fmt.Errorf("%s has the entry %q twice", what, excerpt.Of(e.name))
		}
		seen[key] = true
		if strings.HasSuffix(e.name, "/") {
			continue // directories come with the files in them
		}
		if !e.mode.IsRegular() {
			return nil, fmt.Errorf("%s: entry %q is not a regular file (%v)", what, excerpt.Of(e.name), e.mode)
		}
		if len(files) == maxFiles {
			return nil, fmt.Errorf("%s has more than %d files", what, maxFiles)
		}
		if uint64(e.size) > uint64(*left) {
			return nil, fmt.Errorf("%s unpacks to more bytes than allowed: entry %q has %d, %d are left", what, excerpt.Of(e.name), e.size, *left)
		}
		*left -= int(e.size)
		content, err := e.unpack()
		if err != nil {
			return nil, fmt.Errorf("%s: entry %q: %w", what, excerpt.Of(e.name), err)
		}
		files = append(files, File{e.name, content})
	}
	if err := CheckFiles(files); err != nil {
		return nil, fmt.Errorf("%s: %w%s", what, err, renameIt)
	}
	sort.Slice(files, func(i, j int) bool { return files[i].Name < files[j].Name })
	return files, nil
}
