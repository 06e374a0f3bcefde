package cli

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"os"
	"time"

	"peerlink/internal/durable"
	"peerlink/node"
	"peerlink/node/pki"
)

// recordedServerCert returns the newest usable certificate in certs/ for the server key in a file, or nil if there is none. A
// command that is interrupted between the key file and the certificate file leaves such a certificate there.
func recordedServerCert(ctx context.Context, d *node.Dir, keyFile string) (*x509.Certificate, error) {
	pem, key, err := readServerKey(ctx, keyFile)
	if err != nil {
		return nil, err
	}
	clear(pem)
	certs, err := d.ServerCerts()
	if err != nil {
		return nil, err
	}
	revoked, err := d.RevokedKeys()
	if err != nil {
		return nil, err
	}
	var found *x509.Certificate
	for _, c := range certs {
		if pki.Fingerprint(c.PublicKey) == pki.Fingerprint(key.Public()) && time.Now().Before(c.NotAfter) && !revoked.Has(c) {
			found = c
		}
	}
	return found, nil
}

// completeRenewal completes a "server-cert renew --new-key" that was interrupted between the key and the certificate: it
// replaces the certificate file by the certificate that was signed for the key. It reports whether there was one. old is the
// certificate in the file.
func (a *app) completeRenewal(ctx context.Context, d *node.Dir, r *renewal, old *x509.Certificate) (bool, error) {
	cert, err := recordedServerCert(ctx, d, r.keyFile)
	if err != nil || cert == nil || cert.NotBefore.Before(old.NotBefore) {
		return false, err
	}
	if err := durable.Replace(r.certFile, pki.EncodeCertificatePEM(cert), 0o644); err != nil {
		return true, err
	}
	a.printMessage("Completed the renewal that was interrupted: %s is the certificate of the new key in %s.", r.certFile, r.keyFile)
	a.removeServerLeftovers(r.keyFile, r.certFile)
	return true, a.showServerCert(r.certFile, r.keyFile, cert, r.asJSON)
}

// completeIssue completes a "server-cert issue" that was interrupted between the key and the certificate. It reports
// whether there was one.
func (a *app) completeIssue(ctx context.Context, d *node.Dir, keyFile, certFile string, asJSON bool) (bool, error) {
	_, keyErr := os.Lstat(keyFile)
	if _, certErr := os.Lstat(certFile); keyErr != nil || !errors.Is(certErr, fs.ErrNotExist) {
		return false, nil
	}
	cert, err := recordedServerCert(ctx, d, keyFile)
	if err != nil || cert == nil {
		return false, nil // the caller says that the file exists
	}
	if err := durable.Create(certFile, pki.EncodeCertificatePEM(cert), 0o644); err != nil {
		return true, err
	}
	a.printMessage("Completed the command that was interrupted: %s is the certificate of the key in %s.", certFile, keyFile)
	a.removeServerLeftovers(keyFile, certFile)
	return true, a.showServerCert(certFile, keyFile, cert, asJSON)
}

// removeServerLeftovers removes the temporary files that interrupted commands have left beside the files of a server key and
// its certificate: they may hold a key, which is not encrypted.
func (a *app) removeServerLeftovers(files ...string) {
	for _, file := range files {
		found, err := durable.Leftovers(file)
		if err != nil {
			continue
		}
		for _, path := range found {
			if os.Remove(path) == nil {
				a.printMessage("Removed %s, left by an interrupted command.", path)
			}
		}
	}
}
