package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/internal/shell"
	"peerlink/node"
	"peerlink/node/pki"
)

func (a *app) serverCertRenewCommand() *cobra.Command {
	var r renewal
	c := &cobra.Command{
		Use:   "renew KEY CRT",
		Short: "Replace a server certificate by a new one, with the same key or a new one",
		Long: `Signs a new certificate for the server key in the file KEY, and replaces the file
CRT. A running service uses it within seconds; no connection is lost. With
--new-key it makes a new key too, and replaces both files; if that was interrupted
between the two, the same command completes it.

If the root key is on another machine, --csr FILE.csr writes a request for the
same key instead, and changes nothing: sign it there with "server-cert sign", or
take it to the offline machine with "peerlink request new --csr FILE.csr". If the
key is to be replaced too, use "server-cert request" instead, which makes a new
key and a request for it.`,
		Example: `  peerlink server-cert renew server.key server.crt
  peerlink server-cert renew server.key server.crt --new-key
  peerlink server-cert renew server.key server.crt --csr renewed.csr`,
		Args: someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			r.keyFile, r.certFile = args[0], args[1]
			if r.newKey && r.csrFile != "" {
				return usagef("--new-key and --csr: for a new key, \"peerlink server-cert request NEW.key NEW.csr\" makes both")
			}
			if err := checkDays(r.days); err != nil {
				return err
			}
			return a.renewServerCert(cmd.Context(), d, &r)
		},
	}
	c.Flags().BoolVar(&r.newKey, "new-key", false, "make a new server key too")
	keyTypeFlag(c, &r.keyType)
	c.Flags().StringVar(&r.csrFile, "csr", "", "only write a certificate signing request for the same key to `FILE`")
	a.daysFlags(c, &r.days)
	jsonFlag(c, &r.asJSON)
	return c
}

// renewal holds the arguments of "server-cert renew".
type renewal struct {
	keyFile, certFile, csrFile, keyType string
	newKey, asJSON                      bool
	days                                int
}

func (a *app) renewServerCert(ctx context.Context, d *node.Dir, r *renewal) error {
	old, err := ownServerCert(ctx, d, r.certFile)
	if err != nil {
		return err
	}
	oldKey, csr, err := serverKeyCSR(ctx, d, r.keyFile, old)
	if errors.Is(err, errOtherServerKey) {
		if r.newKey {
			if done, completeErr := a.completeRenewal(ctx, d, r, old); done || completeErr != nil {
				return completeErr
			}
		}
		return fmt.Errorf("%w; if \"server-cert renew --new-key\" was interrupted, the same command completes it", err)
	}
	if err != nil {
		return err
	}
	defer clear(oldKey)
	revoked, err := d.RevokedKeys()
	switch {
	case err != nil:
		return err
	case revoked.Has(old) && !r.newKey:
		return fmt.Errorf("the key in %s has been revoked, so that peers refuse it: make a new one with --new-key", r.keyFile)
	case r.csrFile != "":
		return a.writeRenewalCSR(r, csr)
	}
	rootKey, err := a.checkedRootKey(ctx, d)
	if err != nil {
		return err
	}
	var keyPEM []byte
	if r.newKey {
		if keyPEM, csr, err = a.newServerKey(d, r.keyType); err != nil {
			return err
		}
		defer clear(keyPEM)
	}
	cert, err := d.SignServer(ctx, rootKey, csr, daysToValidity(r.days))
	if err != nil {
		return err
	}
	if err := replacePair(r, pki.EncodeCertificatePEM(cert), keyPEM, oldKey); err != nil {
		return fmt.Errorf("%w; the new certificate is certs/%s.pem in the node's directory", err, pki.SerialHex(cert.SerialNumber))
	}
	a.removeServerLeftovers(r.keyFile, r.certFile)
	return a.showServerCert(r.certFile, r.keyFile, cert, r.asJSON)
}

// errOtherServerKey is the end of the error for a server key and a certificate that do not belong together.
var errOtherServerKey = errors.New("is not the key of the certificate")

// replacePair replaces the certificate file, and the key file if newKey is not nil. If the
// certificate file cannot be replaced, it restores the old key.
func replacePair(r *renewal, cert, newKey, oldKey []byte) error {
	if newKey != nil {
		if err := durable.Replace(r.keyFile, newKey, 0o600); err != nil {
			return err
		}
	}
	err := durable.Replace(r.certFile, cert, 0o644)
	if err != nil && newKey != nil {
		err = errors.Join(err, durable.Replace(r.keyFile, oldKey, 0o600))
	}
	return err
}

func (a *app) writeRenewalCSR(r *renewal, csr *x509.CertificateRequest) error {
	if err := checkCreatable(r.csrFile); err != nil {
		return err
	}
	if err := durable.Create(r.csrFile, pki.EncodeCSRPEM(csr.Raw), 0o644); err != nil {
		return err
	}
	if err := a.result(r.asJSON, madeRequest{r.csrFile, r.keyFile}, r.csrFile); err != nil {
		return err
	}
	a.printMessage("Sign it where the root key is (\"peerlink server-cert sign\", or \"peerlink request new --csr %s\"),\nand replace %s with the new certificate.", shell.Quote(r.csrFile), r.certFile)
	return nil
}

// readServerKey reads the file of a server key. It returns its content and the key.
func readServerKey(ctx context.Context, path string) (pem []byte, key crypto.Signer, err error) {
	if err := guard.CheckKeyFile(path); err != nil {
		return nil, nil, fmt.Errorf("server key: %w", err)
	}
	if pem, err = readBounded(ctx, path, maxInputFile); err != nil {
		return nil, nil, err
	}
	if key, err = pki.DecodeKey(pem, nil); err != nil {
		return nil, nil, fmt.Errorf("server key %s: %w", path, err)
	}
	return pem, key, nil
}

// serverKeyCSR reads the file of a server key, which must be the key of the certificate, unless
// cert is nil. It returns the content of the file, and a new certificate signing request for the key.
func serverKeyCSR(ctx context.Context, d *node.Dir, path string, cert *x509.Certificate) (pem []byte, csr *x509.CertificateRequest, err error) {
	pem, key, err := readServerKey(ctx, path)
	if err != nil {
		return nil, nil, err
	}
	if cert != nil && pki.Fingerprint(key.Public()) != pki.Fingerprint(cert.PublicKey) {
		return nil, nil, fmt.Errorf("%s %w", path, errOtherServerKey)
	}
	der, err := pki.NewCSR(d.Identity(), key, pki.ServerCSR)
	if err != nil {
		return nil, nil, err
	}
	csr, err = x509.ParseCertificateRequest(der)
	return pem, csr, err
}
