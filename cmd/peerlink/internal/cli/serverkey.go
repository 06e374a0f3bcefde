package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/spf13/cobra"

	"peerlink/internal/guard"
	"peerlink/link"
	"peerlink/node"
)

// serverCertFlags adds the flags for the server certificate and its key.
func serverCertFlags(c *cobra.Command, cert, key *string) {
	flags := c.Flags()
	flags.StringVar(cert, "server-cert", "/etc/swpt/server.crt", "the server certificate `FILE`")
	fromEnv(flags, "server-cert", "PEERLINK_SERVER_CERT", "SWPT_SERVER_CERT")
	flags.StringVar(key, "server-key", "/secrets/swpt-server.key", "its key `FILE`")
	fromEnv(flags, "server-key", "PEERLINK_SERVER_KEY", "SWPT_SERVER_KEY")
}

// loadCertificate reads the service's certificate and key. If other users can read or change the
// key, it only logs a warning: in a container, the modes of mounted secrets may not be
// configurable, and server keys are easy to replace.
func loadCertificate(d *node.Dir, certFile, keyFile string, log *slog.Logger) (*link.Certificate, error) {
	// The check comes before the key is loaded, because the check may change the file's metadata,
	// and changes after loading cause a reload.
	exposedErr := guard.CheckKeyFile(keyFile) // not nil if other users can read or change the key
	c, err := link.LoadCertificate(d, certFile, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; --server-cert and --server-key say where they are, and \"peerlink server-cert issue KEY CRT\" makes both, where the root key is", err)
	}
	if err != nil {
		return nil, err
	}
	if exposedErr != nil {
		log.Warn("other users can read or change the server key", "err", exposedErr)
	} else if err := guard.CheckOwner(keyFile); err != nil {
		log.Warn("the file of the server key belongs to another user", "err", err)
	}
	return c, nil
}
