package node

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/internal/textfile"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// revokedKeysFile is the name of the file, in nodeinfo, with the server keys that a node has
// revoked, because they were stolen. As a part of the info-bundle it is signed with the root key.
// A file of the same name in a peer's directory holds all keys that the peer has ever revoked. The
// reference's scripts and servers do not read either.
//
// A line is the fingerprint of a key ([pki.Fingerprint]) and, after a space, anything. Blank lines
// and lines that begin with # mean nothing.
const revokedKeysFile = infobundle.RevokedKeys

const (
	// MaxRevokedKeys is the maximum number of keys that a node can revoke, and that are remembered of
	// those that a peer has ever revoked.
	MaxRevokedKeys = 256
	// maxUnion is the maximum number of keys in a union ([RevokedKeys.With]). It has space for the keys
	// that a peer's directory has, twice 256, and for those of two newer info-bundles.
	maxUnion = 4 * MaxRevokedKeys
	// maxRevokedFile is the maximum size of a file of revoked keys in bytes.
	maxRevokedFile = infobundle.MaxRevokedKeys
)

var keyFingerprint = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// RevokedKeys is a set of server keys, by their fingerprints.
type RevokedKeys map[string]struct{}

// Has reports whether the key of a certificate has been revoked, whatever other certificates it has.
func (r RevokedKeys) Has(cert *x509.Certificate) bool {
	_, revoked := r[pki.Fingerprint(cert.PublicKey)]
	return revoked
}

// With returns the keys of both sets, which are not changed. Keys above the maximum number of 1024
// are left out of those that only other has.
func (r RevokedKeys) With(other RevokedKeys) RevokedKeys { return r.union(other, maxUnion) }

// union returns all keys of r, and of those that only other has as many as fit into most keys.
func (r RevokedKeys) union(other RevokedKeys, most int) RevokedKeys {
	if len(other) == 0 {
		return r
	}
	both := make(RevokedKeys, len(r)+len(other))
	maps.Copy(both, r)
	for _, key := range slices.Sorted(maps.Keys(other)) {
		if len(both) < most {
			both[key] = struct{}{}
		}
	}
	return both
}

// parseRevokedKeys parses a file of revoked keys. With an error, it returns the keys of all valid
// lines, up to the maximum number.
func parseRevokedKeys(data []byte) (RevokedKeys, error) {
	text, err := textfile.Decode(data)
	if err != nil {
		return nil, err
	}
	keys := make(RevokedKeys)
	n := 0
	for line := range strings.Lines(string(text)) {
		n++
		fields := strings.Fields(line)
		switch {
		case len(fields) == 0 || strings.HasPrefix(fields[0], "#"):
		case !keyFingerprint.MatchString(fields[0]):
			if err == nil {
				err = fmt.Errorf("line %d begins with %q: expected \"sha256:\" and 64 lowercase hex digits", n, excerpt.Of(fields[0]))
			}
		case len(keys) == MaxRevokedKeys:
			return keys, fmt.Errorf("it has more than %d keys", MaxRevokedKeys)
		default:
			keys[fields[0]] = struct{}{}
		}
	}
	return keys, err
}

// RevokedIn returns the keys that the nodeinfo of an info-bundle revokes. Lines that are not valid do
// not count: they may have a meaning in later versions.
func RevokedIn(b *infobundle.Bundle) RevokedKeys {
	keys, _ := parseRevokedKeys(b.File(revokedKeysFile))
	return keys
}

// CheckRevokedIn returns an error if a line of the list of revoked keys among the files of an info-bundle is not valid. The
// owner of the info-bundle has to correct it before signing; peers ignore it.
func CheckRevokedIn(b *infobundle.Bundle) error {
	if _, err := parseRevokedKeys(b.File(revokedKeysFile)); err != nil {
		return fmt.Errorf("%s: %w", revokedKeysFile, err)
	}
	return nil
}

// RevokedKeys returns the server keys that this node has revoked. It fails if a line of the file is
// not valid.
func (d *Dir) RevokedKeys() (RevokedKeys, error) {
	return readRevokedKeys(d.file("nodeinfo", revokedKeysFile), true)
}

// CheckNotRevoked returns an error if a server key has been revoked by this node, or if that can not be
// determined. A certificate for such a key would be refused by the peers.
func (d *Dir) CheckNotRevoked(key crypto.PublicKey) error {
	revoked, err := d.RevokedKeys()
	if err != nil {
		return err
	}
	return revoked.Check(key)
}

// Check returns an error if a server key of the node itself is among the keys.
func (r RevokedKeys) Check(key crypto.PublicKey) error {
	if _, found := r[pki.Fingerprint(key)]; found {
		return fmt.Errorf("the server key %s has been revoked, so that peers refuse it: make a new one (\"peerlink server-cert request\")", pki.Fingerprint(key))
	}
	return nil
}

// readRevokedKeys reads a file of revoked keys, which may be missing.
func readRevokedKeys(path string, strict bool) (RevokedKeys, error) {
	data, err := durable.Read(path, maxRevokedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	keys, err := parseRevokedKeys(data)
	if err != nil && strict {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// ReadRevokedKeys returns the keys in the list of a nodeinfo folder. If a line of it is not valid,
// it fails with an error that does not name the file. A file that can not be read counts as
// missing.
func ReadRevokedKeys(folder string) (RevokedKeys, error) {
	data, err := durable.Read(filepath.Join(folder, revokedKeysFile), maxRevokedFile)
	if err != nil {
		return nil, nil
	}
	return parseRevokedKeys(data)
}

// readRevoked sets p.Revoked to the keys that a peer has revoked, according to its directory: those
// that are remembered and, always, those in the list of its newest info-bundle.
func (p *Peer) readRevoked(dir string) {
	pinned, err := readPinned(dir)
	latest, latestErr := readLatest(dir)
	p.Revoked, p.RevokedErr = latest.With(pinned), errors.Join(err, latestErr)
	p.NotRemembered = max(0, len(p.Revoked)-MaxRevokedKeys)
}

// NotRemembered returns [Peer.NotRemembered] of the peer in a directory, or [Peer.RevokedErr].
func NotRemembered(dir string) (int, error) {
	var p Peer
	p.readRevoked(dir)
	return p.NotRemembered, p.RevokedErr
}

// readPinned returns the keys that are remembered of those that a peer has ever revoked.
func readPinned(dir string) (RevokedKeys, error) {
	return readRevokedKeys(filepath.Join(dir, revokedKeysFile), true)
}

// readLatest returns the keys in the list of a peer's nodeinfo.
func readLatest(dir string) (RevokedKeys, error) {
	return readRevokedKeys(filepath.Join(dir, "nodeinfo", revokedKeysFile), false)
}

// pinRevokedKeys records, before the nodeinfo of a peer is replaced by that of a newer bundle, the
// keys that either revokes: a newer bundle, which may have been made without the file or with a
// stolen copy of an old directory, does not make a key valid again. Keys above the maximum number
// are not recorded.
func pinRevokedKeys(dir string, b *infobundle.Bundle) error {
	keys, err := knownRevoked(dir)
	if err != nil {
		return err
	}
	return writeRevokedKeys(dir, keys.union(RevokedIn(b), MaxRevokedKeys))
}

// knownRevoked returns the keys that a peer has revoked according to its directory, up to the maximum
// number: those that are remembered, and those in the list of its newest info-bundle. A list in the
// nodeinfo that can never be read has no keys.
func knownRevoked(dir string) (RevokedKeys, error) {
	pinned, err := readPinned(dir)
	if err != nil {
		return nil, err
	}
	latest, err := readLatest(dir)
	if err != nil && !isUnreadable(err) {
		return nil, err
	}
	return pinned.union(latest, MaxRevokedKeys), nil
}

// writeRevokedKeys writes the keys that are remembered of those that a peer has ever revoked. Without
// keys it writes nothing.
func writeRevokedKeys(dir string, keys RevokedKeys) error {
	if len(keys) == 0 {
		return nil
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(dir, revokedKeysFile), formatRevokedKeys(keys), 0o644)
}

func formatRevokedKeys(keys RevokedKeys) []byte {
	return []byte(strings.Join(slices.Sorted(maps.Keys(keys)), "\n") + "\n")
}

// ParseKeyFingerprint returns the fingerprint of a server key from what an operator has typed:
// "sha256:" and 64 hex digits, or the digits alone.
func ParseKeyFingerprint(text string) (string, error) {
	text = strings.ToLower(text)
	if !strings.HasPrefix(text, "sha256:") {
		text = "sha256:" + text
	}
	if !keyFingerprint.MatchString(text) {
		return "", fmt.Errorf("%q is not the fingerprint of a key: expected \"sha256:\" and 64 hex digits", excerpt.Of(text))
	}
	return text, nil
}

// RevokeServerKey adds the fingerprint of a server key to those that the next info-bundle revokes, for
// ever. It returns false if the key was revoked already. The root key can not be revoked.
func (d *Dir) RevokeServerKey(ctx context.Context, fingerprint string) (changed bool, err error) {
	switch {
	case !keyFingerprint.MatchString(fingerprint):
		return false, fmt.Errorf("%q is not the fingerprint of a key", excerpt.Of(fingerprint))
	case fingerprint == pki.Fingerprint(d.root.PublicKey):
		return false, errors.New("this is the root key, and not a server key: it can not be revoked")
	}
	unlock, err := d.lock(ctx)
	if err != nil {
		return false, err
	}
	defer unlock()
	keys, err := d.RevokedKeys()
	if err != nil {
		return false, fmt.Errorf("%w; correct the file first", err)
	}
	if _, known := keys[fingerprint]; known {
		return false, nil
	}
	if len(keys) == MaxRevokedKeys {
		return false, fmt.Errorf("%d keys are revoked, and there can not be more", MaxRevokedKeys)
	}
	path := d.file("nodeinfo", revokedKeysFile)
	text, err := readText(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return false, err
	}
	if len(text) == 0 {
		text = []byte("# Server keys of this node that peers must refuse. Lines are added by \"peerlink server-cert revoke\", and never removed.\n")
	}
	if !strings.HasSuffix(string(text), "\n") {
		text = append(text, '\n')
	}
	text = fmt.Appendf(text, "%s %s\n", fingerprint, time.Now().UTC().Format(time.DateOnly))
	return true, durable.Replace(path, text, 0o644)
}

// ServerCerts returns the server certificates that this node has signed, from certs/, in the order
// of their validity, the oldest first. Files there that can not be read are skipped.
func (d *Dir) ServerCerts() ([]*x509.Certificate, error) {
	files, err := d.database().certFiles()
	if err != nil {
		return nil, err
	}
	var found []*x509.Certificate
	for _, path := range files {
		certs, err := readCerts(path)
		if err != nil || len(certs) != 1 {
			continue
		}
		if d.IsServerCert(certs[0]) {
			found = append(found, certs[0])
		}
	}
	slices.SortStableFunc(found, func(a, b *x509.Certificate) int { return a.NotBefore.Compare(b.NotBefore) })
	return found, nil
}

// IsServerCert reports whether a certificate is one that this node has signed for a server of its
// own, valid now or not.
func (d *Dir) IsServerCert(cert *x509.Certificate) bool {
	id, err := pki.IdentityOf(cert.RawSubject)
	return err == nil && id == d.identity && !cert.IsCA && d.database().hasSigned(cert)
}
