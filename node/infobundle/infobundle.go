// Package infobundle writes and verifies info-bundles, the files with which Swaptacular nodes
// publish their root certificate and servers.
//
// An info-bundle is a zip file with exactly four entries:
//
//	root-ca.crt         the node's self-signed root certificate
//	root-ca.csr         a certificate signing request by the root key
//	nodeinfo.zip        the node's public files; stomp.toml is required
//	nodeinfo.signature  the root key's signature over the bytes of nodeinfo.zip
//
// Info-bundles are not trusted. [Read] verifies certificate and request, all signatures, the
// name, every file name and every size before it returns any content, and writes nothing to
// disk. A bundle does not prove the identity of the node's owner: for creditors agents and
// debtors agents the node ID is derived from the key, for an accounting authority the
// fingerprint must be compared.
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

// Bounds on an info-bundle, with which [Read] needs less than 32 MiB and half a second. The
// usual size is about 10 KiB.
const (
	MaxSize = 512 << 10 // bytes of the bundle file
	// maxUnpacked is the maximum total size in bytes of the unpacked entries of a bundle and
	// of the nodeinfo.zip in it.
	maxUnpacked      = 2 << 20
	maxEntries       = 8        // entries of the bundle; more than the required four, so that the error can name an extra one
	maxCertificate   = 64 << 10 // bytes of root-ca.crt and of root-ca.csr
	maxSignature     = 8 << 10  // bytes of nodeinfo.signature
	maxNodeinfoZip   = MaxSize
	maxNodeinfoFiles = 200 // files in nodeinfo.zip
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
	StompTOML = "stomp.toml"     // the node's STOMP servers; required
	UpdatedAt = "updated-at.txt" // date of the bundle, by which bundles are ordered
	// RevokedKeys lists the server keys that the node has revoked.
	RevokedKeys = "revoked-keys.txt"
)

// ErrInvalid is wrapped by every error that [Read] returns.
var ErrInvalid = errors.New("invalid info-bundle")

// A File is one nodeinfo file. Name is a relative slash-separated path.
type File struct {
	Name string
	Data []byte
}

// Bundle is a verified info-bundle.
type Bundle struct {
	Identity pki.Identity
	Root     *x509.Certificate
	RootPEM  []byte // unchanged content of root-ca.crt, because tools compare it byte by byte
	Nodeinfo []File // sorted by name
}

// File returns the content of a nodeinfo file, or nil if there is no such file.
func (b *Bundle) File(name string) []byte {
	for _, f := range b.Nodeinfo {
		if f.Name == name {
			return f.Data
		}
	}
	return nil
}

// UpdatedAt returns the bundle's date, the content of updated-at.txt, or "" if there is none. Of
// two bundles of a node, the one whose date sorts later as a string takes precedence.
func (b *Bundle) UpdatedAt() string { return DateOf(b.File(UpdatedAt)) }

// Create makes an info-bundle with the root certificate and CSR in PEM, the nodeinfo files, and
// the root key's signature over nodeinfo.zip.
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

// Assemble makes an info-bundle from its four parts, and verifies it with [Read].
func Assemble(rootPEM, csrPEM, nodeinfoZip, sig []byte) ([]byte, error) {
	// Verified before data that others may have written is compressed, which takes long.
	if len(nodeinfoZip) > maxNodeinfoZip {
		return nil, fmt.Errorf("%s has %d bytes, more than %d", nodeinfo, len(nodeinfoZip), maxNodeinfoZip)
	}
	root, err := pki.ParseCertificatePEM(rootPEM)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", rootCert, err)
	}
	if err := pki.VerifyData(root.PublicKey, nodeinfoZip, sig); err != nil {
		return nil, fmt.Errorf("%s is not signed by the root key: %w", nodeinfo, err)
	}
	var outer bytes.Buffer
	err = writeZip(&outer, []File{
		{rootCert, rootPEM},
		{rootCSR, csrPEM},
		{nodeinfo, nodeinfoZip},
		{signature, sig},
	})
	if err != nil {
		return nil, err
	}
	// Do not return a bundle that other nodes would refuse.
	if _, err := Read(outer.Bytes(), time.Now()); err != nil {
		return nil, err
	}
	return outer.Bytes(), nil
}

// Read verifies an info-bundle and returns its content ("Info-bundle" and step 2 of "Becoming
// peers" in the specification). Every error wraps [ErrInvalid].
func Read(data []byte, now time.Time) (*Bundle, error) {
	left := maxUnpacked
	return ReadWithin(data, now, &left)
}

// ReadWithin is like [Read], for one of several bundles with a common limit on the unpacked
// size: *left is the number of bytes left, which ReadWithin reduces by the unpacked size of this
// bundle.
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
	for name := range part { // what is left is not one of the four entries
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
	if b.Nodeinfo, err = unzip(nodeinfo, part[nodeinfo], maxNodeinfoFiles, left); err != nil {
		return nil, err
	}
	if err := checkMeaningful(b.Nodeinfo); err != nil {
		return nil, fmt.Errorf("%s: %w; the bundle's owner has to make a new one", nodeinfo, err)
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

// unzip unpacks a plain zip file in memory. It accepts regular files with harmless, distinct
// names, at most maxFiles of them, with a total size of at most *left bytes, and reduces *left
// by the total size.
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
		// Names that differ only in letter case are the same file on some systems.
		key := strings.ToLower(strings.TrimSuffix(e.name, "/"))
		if seen[key] {
			return nil, fmt.Errorf("%s has the entry %q twice", what, excerpt.Of(e.name))
		}
		seen[key] = true
		if strings.HasSuffix(e.name, "/") {
			continue // directories are created for the files in them
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
