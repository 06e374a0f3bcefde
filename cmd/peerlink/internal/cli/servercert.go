package cli

import (
	"context"
	"crypto"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/pki"
)

// Validity of server certificates, in days.
const (
	defaultDays = 365
	maxDays     = 3650
)

func (a *app) serverCertCommand() *cobra.Command {
	return group("server-cert", "Make, list, renew and revoke certificates for this node's servers",
		a.serverCertRequestCommand(), a.serverCertSignCommand(), a.serverCertIssueCommand(),
		a.serverCertListCommand(), a.serverCertInspectCommand(), a.serverCertRenewCommand(), a.serverCertRevokeCommand())
}

func (a *app) serverCertRequestCommand() *cobra.Command {
	var keyType string
	var asJSON bool
	c := &cobra.Command{
		Use:   "request KEY CSR",
		Short: "Make a server key and a certificate signing request (on the server)",
		Long: `Makes a new server key (not encrypted, readable by you only) and a
certificate signing request for it. The root key is not needed: this can run on
the server, with a copy of the node's directory without private/. Take the
request to where the root key is, and sign it there with "server-cert sign".`,
		Example: "  peerlink server-cert request server.key server.csr",
		Args:    someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			if err := checkCreatable(args...); err != nil {
				return err
			}
			keyPEM, csr, err := a.newServerKey(d, keyType)
			if err != nil {
				return err
			}
			files, err := prepare(output{args[0], keyPEM, 0o600}, output{args[1], pki.EncodeCSRPEM(csr.Raw), 0o644})
			if err != nil {
				return err
			}
			if err := files.create(); err != nil {
				return err
			}
			if err := a.result(asJSON, madeRequest{args[1], args[0]}, args[1]); err != nil {
				return err
			}
			a.printMessage("The key %s stays on the server. Sign the request where the root key is:\n  peerlink server-cert sign %s server.crt\nIf that machine has no network, take it there with \"peerlink request new --csr %s\".", args[0], args[1], args[1])
			return nil
		},
	}
	keyTypeFlag(c, &keyType)
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) serverCertSignCommand() *cobra.Command {
	var days int
	var asJSON bool
	c := &cobra.Command{
		Use:     "sign CSR CRT",
		Short:   "Sign a server certificate for a request (where the root key is)",
		Example: "  peerlink server-cert sign server.csr server.crt --days 365",
		Args:    someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			data, err := readText(cmd.Context(), args[0], maxInputFile)
			if err != nil {
				return err
			}
			csr, err := pki.ParseCSRPEM(data)
			if err != nil {
				return fmt.Errorf("%s: %w", args[0], err)
			}
			return a.signServer(cmd.Context(), csr, args[1], days, asJSON)
		},
	}
	a.daysFlags(c, &days)
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) serverCertIssueCommand() *cobra.Command {
	var keyType string
	var days int
	var asJSON bool
	c := &cobra.Command{
		Use:     "issue KEY CRT",
		Short:   "Make a server key and its certificate in one step",
		Example: "  peerlink server-cert issue server.key server.crt",
		Args:    someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			// These checks come first, so that nobody types a passphrase in vain.
			if err := checkCreatable(args...); err != nil {
				return err
			}
			if err := checkDays(days); err != nil {
				return err
			}
			rootKey, err := a.checkedRootKey(cmd.Context(), d)
			if err != nil {
				return err
			}
			keyPEM, csr, err := a.newServerKey(d, keyType)
			if err != nil {
				return err
			}
			cert, err := a.makeServerCert(cmd.Context(), d, rootKey, csr, days, args[1], output{args[0], keyPEM, 0o600})
			if err != nil {
				return err
			}
			return a.showServerCert(args[1], args[0], cert, asJSON)
		},
	}
	a.daysFlags(c, &days)
	keyTypeFlag(c, &keyType)
	jsonFlag(c, &asJSON)
	return c
}

// keyTypeFlag adds the flag for the kind of a new server key.
func keyTypeFlag(c *cobra.Command, keyType *string) {
	c.Flags().StringVar(keyType, "key-type", pki.P256.String(), "kind of the new server key: p256 (cheapest handshakes), p384, rsa3072 or rsa4096")
}

// daysFlags adds the flags of commands that sign server certificates.
func (a *app) daysFlags(c *cobra.Command, days *int) {
	c.Flags().IntVar(days, "days", defaultDays, "how many days the certificate is valid")
	a.keyFlags(c)
}

func (a *app) signServer(ctx context.Context, csr *x509.CertificateRequest, path string, days int, asJSON bool) error {
	d, err := a.open()
	if err != nil {
		return err
	}
	if err := checkDays(days); err != nil {
		return err
	}
	if err := checkCreatable(path); err != nil {
		return err
	}
	rootKey, err := a.checkedRootKey(ctx, d)
	if err != nil {
		return err
	}
	cert, err := a.makeServerCert(ctx, d, rootKey, csr, days, path)
	if err != nil {
		return err
	}
	return a.showServerCert(path, "", cert, asJSON)
}

// makeServerCert signs a server certificate, and writes it and the other files. If the content of a
// file cannot be written, the certificate is not recorded. After any error, none of the files
// remains.
func (a *app) makeServerCert(ctx context.Context, d *node.Dir, root crypto.Signer, csr *x509.CertificateRequest, days int, path string, others ...output) (*x509.Certificate, error) {
	var prepared outputs
	defer func() { prepared.discard() }()
	cert, err := d.SignServerFunc(ctx, root, csr, daysToValidity(days), func(cert *x509.Certificate) (err error) {
		prepared, err = prepare(append(others, output{path, pki.EncodeCertificatePEM(cert), 0o644})...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return cert, prepared.create()
}

// madeRequest is a new certificate signing request, in JSON.
type madeRequest struct {
	File string `json:"file"`
	Key  string `json:"key"` // the file of the server's key
}

// madeCert is a new server certificate, in JSON.
type madeCert struct {
	File     string    `json:"file"`
	Key      string    `json:"key,omitempty"` // the file of the server's key, if it was made too
	Serial   string    `json:"serial"`
	NotAfter time.Time `json:"not_after"`
}

func (a *app) showServerCert(path, key string, cert *x509.Certificate, asJSON bool) error {
	if err := a.result(asJSON, madeCert{path, key, pki.SerialHex(cert.SerialNumber), cert.NotAfter.UTC()}, path); err != nil {
		return err
	}
	a.printMessage("Valid until %s. Put it on the server, beside its key: \"peerlink serve --server-cert --server-key\".", cert.NotAfter.UTC().Format(time.DateOnly))
	return nil
}

// newServerKey makes a server key, in PEM, and a certificate signing request for it.
func (a *app) newServerKey(d *node.Dir, keyType string) (keyPEM []byte, csr *x509.CertificateRequest, err error) {
	kind, err := pki.ParseKeyKind(keyType)
	if err != nil {
		return nil, nil, &usageError{"--key-type: " + err.Error()}
	}
	stop := a.working("Generating the server key")
	key, err := pki.GenerateKey(kind)
	stop()
	if err != nil {
		return nil, nil, err
	}
	if keyPEM, err = pki.EncodeKey(key); err != nil {
		return nil, nil, err
	}
	der, err := pki.NewCSR(d.Identity(), key, pki.ServerCSR)
	if err != nil {
		return nil, nil, err
	}
	csr, err = x509.ParseCertificateRequest(der)
	return keyPEM, csr, err
}

func checkDays(days int) error {
	if days < 1 || days > maxDays {
		return usagef("--days %d: expected 1 to %d", days, maxDays)
	}
	return nil
}

func daysToValidity(days int) time.Duration { return time.Duration(days) * 24 * time.Hour }
