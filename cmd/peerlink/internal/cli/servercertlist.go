package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/pki"
)

// serverCertInfo is a server certificate in JSON.
type serverCertInfo struct {
	Serial    string    `json:"serial"`
	Key       string    `json:"key"` // the fingerprint of its key
	NotBefore time.Time `json:"not_before"`
	NotAfter  time.Time `json:"not_after"`
	State     string    `json:"state"` // "valid", "future", "ended" or "revoked"
}

func describeServerCert(cert *x509.Certificate, revoked node.RevokedKeys, now time.Time) serverCertInfo {
	info := serverCertInfo{pki.SerialHex(cert.SerialNumber), pki.Fingerprint(cert.PublicKey), cert.NotBefore.UTC(), cert.NotAfter.UTC(), "valid"}
	switch {
	case revoked.Has(cert):
		info.State = "revoked"
	case now.After(cert.NotAfter):
		info.State = "ended"
	case now.Before(cert.NotBefore):
		info.State = "future"
	}
	return info
}

func (a *app) serverCertListCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "list",
		Short: "List the server certificates that were signed for this node",
		Long: `Lists the server certificates that the root key has signed for this node, sorted
by the start of their validity: those with a copy in certs/. KEY is the fingerprint of the server's
key, which "server-cert revoke" takes. Certificates of the same key have the same.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			revoked, err := d.RevokedKeys()
			if err != nil {
				return err
			}
			certs, err := d.ServerCerts()
			if err != nil {
				return err
			}
			list := make([]serverCertInfo, 0, len(certs))
			shown := &grid{columns: []column{{title: "SERIAL", drop: 1}, {title: "STATE"}, {title: "UNTIL"}, {title: "KEY"}}}
			for _, cert := range certs {
				info := describeServerCert(cert, revoked, time.Now())
				list = append(list, info)
				shown.add(info.Serial, info.State, info.NotAfter.Format(time.DateOnly), info.Key)
			}
			switch {
			case asJSON:
				return a.json(list)
			case len(list) == 0:
				a.printMessage("No server certificate yet: \"peerlink server-cert issue\" makes one.")
			default:
				a.showGrid(shown)
			}
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}

// ownServerCert reads the file of a server certificate that this node has signed.
func ownServerCert(ctx context.Context, d *node.Dir, path string) (*x509.Certificate, error) {
	data, err := readText(ctx, path, maxInputFile)
	if err != nil {
		return nil, err
	}
	cert, err := pki.ParseCertificatePEM(data)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	if !d.IsServerCert(cert) {
		return nil, fmt.Errorf("%s is not a server certificate of %s: expected one that its root key has signed", path, d.Identity())
	}
	return cert, nil
}

func (a *app) serverCertInspectCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "inspect CERT",
		Short:   "Show a server certificate of this node",
		Example: "  peerlink server-cert inspect server.crt",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			cert, err := ownServerCert(cmd.Context(), d, args[0])
			if err != nil {
				return err
			}
			revoked, err := d.RevokedKeys()
			if err != nil {
				return err
			}
			info := describeServerCert(cert, revoked, time.Now())
			if asJSON {
				return a.json(info)
			}
			a.table([][2]string{
				{"node", d.Identity().String()},
				{"serial", info.Serial},
				{"state", info.State},
				{"valid from", info.NotBefore.Format(time.RFC3339)},
				{"valid until", info.NotAfter.Format(time.RFC3339)},
				{"key", info.Key},
			})
			return nil
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
