package node

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/node/infobundle"
	"peerlink/node/pki"
)

// This file remembers what must be known of a root key for ever, also after the peer's directory was
// removed or replaced: the server keys that it has revoked, and the date of its newest info-bundle.
// Otherwise an older info-bundle could be signed later, which does not have the revocation.

// rememberedFolder has a folder for each of these root keys, with the same files as a peer's directory:
// revoked-keys.txt and nodeinfo/updated-at.txt. There are never more than copies of peer certificates
// in certs/. The reference's scripts do not read it.
const rememberedFolder = "db/removed"

// rememberedOf returns the path of the folder with what is remembered of a root key. It may not exist.
func (d *Dir) rememberedOf(root *x509.Certificate) string {
	digits := strings.TrimPrefix(pki.Fingerprint(root.PublicKey), "sha256:")
	return d.file(filepath.FromSlash(rememberedFolder), digits)
}

// remember records what the directory of a peer says of its root key, before it is removed or replaced.
// What can never be read is not recorded, as in pinRevokedKeys.
func (d *Dir) remember(dir string) error {
	root, err := readCert(dir, "root-ca.crt")
	if err != nil {
		return err
	}
	folder := d.rememberedOf(root)
	keys, err := knownRevoked(dir)
	if err != nil {
		return err
	}
	earlier, err := readPinned(folder)
	if err != nil {
		return err
	}
	date, err := knownDate(dir)
	if err != nil {
		return err
	}
	return errors.Join(writeRevokedKeys(folder, earlier.union(keys, MaxRevokedKeys)), rememberDate(folder, date))
}

// rememberDate records the date of an info-bundle, unless it is not valid, or a later one is recorded.
func rememberDate(folder, date string) error {
	earlier, err := knownDate(folder)
	if err != nil || infobundle.CheckDate(date, time.Now()) != nil || date <= earlier {
		return err
	}
	if err := os.MkdirAll(filepath.Join(folder, "nodeinfo"), 0o755); err != nil {
		return err
	}
	return durable.Replace(filepath.Join(folder, "nodeinfo", infobundle.UpdatedAt), []byte(date+"\n"), 0o644)
}

// checkRemembered checks that an info-bundle, by which a node becomes a peer again, is not older than the
// newest one that was known of its root key. A date that is too far in the future does not count.
func (d *Dir) checkRemembered(b *infobundle.Bundle) error {
	date, err := knownDate(d.rememberedOf(b.Root))
	if err != nil || infobundle.CheckDate(date, time.Now()) != nil || b.UpdatedAt() >= date {
		return err
	}
	dated := "dated " + b.UpdatedAt()
	if b.UpdatedAt() == "" {
		dated = "without a date"
	}
	return fmt.Errorf("the info-bundle of %s is %s, but a newer one, dated %s, was known before this peer was removed or replaced; an older one may lack keys that were revoked since: ask its owner for a new one", b.Identity, dated, date)
}

// rememberedKeys returns the file with the keys that a root key has revoked, according to what is
// remembered of it, for the directory of a new peer. There is none if no keys are remembered.
func (d *Dir) rememberedKeys(root *x509.Certificate) ([]infobundle.File, error) {
	keys, err := readPinned(d.rememberedOf(root))
	if err != nil || len(keys) == 0 {
		return nil, err
	}
	return []infobundle.File{{Name: revokedKeysFile, Data: formatRevokedKeys(keys)}}, nil
}
