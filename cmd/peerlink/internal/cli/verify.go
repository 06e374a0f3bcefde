package cli

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/terminal"
	"peerlink/node/pki"
)

func (a *app) verifyCommand() *cobra.Command {
	var trusted, untrusted []string
	var nodeID, purpose, at string
	var asJSON bool
	c := &cobra.Command{
		Use:   "verify --trusted ROOT [--untrusted CERT]... [--node-id ID] LEAF",
		Short: "Verify a certificate chain exactly as the links do",
		Long: `Builds a chain from LEAF to a trusted certificate and verifies it by RFC 5280, with
complete directoryName name constraints. It works on X.509 certificates in
general. Exit code 0 means that the chain holds; if none does, the rule that
failed is named and the exit code is 1.`,
		Example: `  # what we check when a peer dials us
  peerlink verify --trusted root-ca.crt --untrusted peers/ID/peercert.crt --node-id ID --purpose client server.crt`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := pki.VerifyOptions{Time: time.Now()}
			switch purpose {
			case "any":
			case "client":
				o.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
			case "server":
				o.KeyUsages = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
			default:
				return usagef("--purpose %q: expected any, client or server", purpose)
			}
			if at != "" {
				var err error
				if o.Time, err = time.Parse(time.RFC3339, at); err != nil {
					return usagef("--at %q: expected a time such as 2026-12-31T12:00:00Z", at)
				}
			}
			leaf, err := readCerts(cmd.Context(), args)
			if err != nil {
				return err
			}
			if len(leaf) != 1 {
				return fmt.Errorf("%s holds %d certificates: expected one", args[0], len(leaf))
			}
			if o.Trusted, err = readCerts(cmd.Context(), trusted); err != nil {
				return err
			}
			if o.Untrusted, err = readCerts(cmd.Context(), untrusted); err != nil {
				return err
			}
			chain, err := pki.Verify(leaf[0], o)
			if err == nil && nodeID != "" {
				err = checkSubject(leaf[0], nodeID)
			}
			return a.showVerification(chain, err, asJSON)
		},
	}
	c.Flags().StringArrayVar(&trusted, "trusted", nil, "`FILE` with trusted certificates (repeat for several)")
	c.Flags().StringArrayVar(&untrusted, "untrusted", nil, "`FILE` with intermediate certificates (repeat for several)")
	c.Flags().StringVar(&nodeID, "node-id", "", "the node ID that the leaf's subject must carry")
	c.Flags().StringVar(&purpose, "purpose", "any", "what the leaf is used for: any, client or server")
	c.Flags().StringVar(&at, "at", "", "the time to verify for, as RFC 3339 (default now)")
	jsonFlag(c, &asJSON)
	cobra.CheckErr(c.MarkFlagRequired("trusted"))
	return c
}

func checkSubject(leaf *x509.Certificate, nodeID string) error {
	id, err := pki.IdentityOf(leaf.RawSubject)
	if err != nil {
		return &pki.VerifyError{Rule: "node ID", Detail: err.Error()}
	}
	if id.ID != nodeID {
		return &pki.VerifyError{Rule: "node ID", Detail: fmt.Sprintf("the certificate belongs to %s, not to %s", id, nodeID)}
	}
	return nil
}

func (a *app) showVerification(chain []*x509.Certificate, err error, asJSON bool) error {
	var failed *pki.VerifyError
	if err != nil && !errors.As(err, &failed) {
		return err
	}
	if asJSON {
		out := map[string]any{"valid": err == nil}
		if err != nil {
			out["rule"], out["error"] = string(failed.Rule), failed.Error()
		} else {
			subjects := make([]string, len(chain))
			for i, c := range chain {
				subjects[i] = c.Subject.String()
			}
			out["chain"] = subjects
		}
		if err := a.json(out); err != nil {
			return err
		}
		if err != nil {
			return errSilent
		}
		return nil
	}
	if err != nil {
		return err
	}
	for i, c := range chain {
		what := "issued by"
		if i == 0 {
			what = "leaf     "
		}
		a.print("%s  %s  (until %s)", what, terminal.Line(c.Subject.String()), c.NotAfter.UTC().Format(time.DateOnly))
	}
	a.print("OK")
	return nil
}

// readCerts reads all certificates of PEM files.
func readCerts(ctx context.Context, paths []string) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for _, path := range paths {
		data, err := readText(ctx, path, 1<<20)
		if err != nil {
			return nil, err
		}
		found := false
		for {
			var block *pem.Block
			if block, data = pem.Decode(data); block == nil {
				break
			}
			if block.Type != "CERTIFICATE" {
				continue
			}
			cert, err := pki.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			certs, found = append(certs, cert), true
		}
		if !found {
			return nil, fmt.Errorf("%s holds no certificate in PEM form", path)
		}
	}
	return certs, nil
}
