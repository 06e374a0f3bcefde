package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"peerlink/internal/guard"
	"peerlink/link"
	"peerlink/node"
)

// loadCertificate reads the service's certificate and key. A key that others can
// read is only warned of: a container may have no say in how its secrets are
// mounted, and a new key can be had at any time.
func loadCertificate(d *node.Dir, certFile, keyFile string, log *slog.Logger) (*link.Certificate, error) {
	// First, since it may touch the file, and what changes from now on is loaded again.
	open := guard.CheckFile(keyFile)
	c, err := link.LoadCertificate(d, certFile, keyFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%w; --server-cert and --server-key say where they are, and \"peerlink server-cert issue KEY CRT\" makes both, where the root key is", err)
	}
	if err != nil {
		return nil, err
	}
	if open != nil {
		log.Warn("the server key is not for others to read", "err", open)
	} else if err := guard.CheckOwner(keyFile); err != nil {
		log.Warn("the server key is another user's", "err", err)
	}
	return c, nil
}
