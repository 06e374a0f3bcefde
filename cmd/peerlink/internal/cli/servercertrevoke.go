package cli

import (
	"context"
	"crypto/x509"
	"fmt"
	"os"
	"slices"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/pki"
)

// revokedKey is the result of "server-cert revoke" in JSON.
type revokedKey struct {
	Key     string `json:"key"`     // the fingerprint
	Changed bool   `json:"changed"` // it was not revoked before
}

func (a *app) serverCertRevokeCommand() *cobra.Command {
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "revoke CERT|KEY-HASH",
		Short: "Make peers refuse a stolen server key, for good",
		Long: `Adds a server key to nodeinfo/revoked-keys.txt, and so to the next info-bundle. A
peer that runs peerlink, and has that bundle, refuses the key in both
directions, whatever certificate it comes with, and ends open connections with
it. Nothing makes the key valid again, neither an older bundle nor a newer one
without it. Peers that run the reference implementation ignore it: for them the
certificate has to run out.

The key is named by a file with a certificate of it, or by its fingerprint as
"server-cert list" prints it. A running service that uses the key ends. On a
terminal it asks first, unless there is --yes.`,
		Example: "  peerlink server-cert revoke server.crt\n  peerlink server-cert revoke sha256:0f3a…",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			key, err := keyToRevoke(cmd.Context(), d, args[0])
			if err != nil {
				return err
			}
			if err := a.confirmRevocation(cmd.Context(), d, key, yes); err != nil {
				return err
			}
			changed, err := d.RevokeServerKey(cmd.Context(), key)
			if err != nil {
				return err
			}
			if !changed {
				a.printMessage("The key %s was revoked already.", key)
			} else {
				a.printMessage("Revoked the key %s.", key)
			}
			a.printMessage("Peers learn of it from a new info-bundle: none that was made before has it. Now, where the root key is:\n\n"+
				"  1. give each server that used the key another one (\"peerlink server-cert issue\");\n"+
				"  2. make an info-bundle (\"%s\"), and publish it, or send it to all peers.", a.createBundle())
			return a.result(asJSON, revokedKey{key, changed}, key)
		},
	}
	yesFlag(c, &yes)
	jsonFlag(c, &asJSON)
	return c
}

// keyToRevoke returns the fingerprint of the key that an argument names.
func keyToRevoke(ctx context.Context, d *node.Dir, text string) (string, error) {
	if _, err := os.Lstat(text); err != nil {
		if key, err := node.ParseKeyFingerprint(text); err == nil {
			return key, nil
		}
	}
	cert, err := ownServerCert(ctx, d, text)
	if err != nil {
		return "", err
	}
	return pki.Fingerprint(cert.PublicKey), nil
}

// confirmRevocation asks on the terminal whether to revoke a key. It warns if no certificate of the key is known.
func (a *app) confirmRevocation(ctx context.Context, d *node.Dir, key string, yes bool) error {
	certs, err := d.ServerCerts()
	if err != nil {
		return err
	}
	if !slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return pki.Fingerprint(c.PublicKey) == key }) {
		a.warn("No certificate in certs/ has the key %s: compare it with \"peerlink server-cert list\".", key)
	}
	if yes || !isTerminal(a.stdin) {
		return nil
	}
	return a.confirm(ctx, fmt.Sprintf("Revoke the server key %s for good?", key), "nothing is revoked")
}
