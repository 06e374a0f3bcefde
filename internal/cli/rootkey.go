package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"peerlink/internal/guard"
	"peerlink/node"
)

// checkRootKey fails if the node's directory, which a running service reads,
// holds a root key that other users can read, and advises against one that is
// there at all. A service never needs it.
func checkRootKey(d *node.Dir, log *slog.Logger) error {
	path := d.DefaultKeyFile()
	switch _, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, fs.ErrPermission):
		return nil // as it should be
	case err != nil:
		return fmt.Errorf("look for a root key: %w", err)
	}
	if err := guard.CheckFile(path); err != nil {
		return fmt.Errorf("a service must not run beside a root key like this: %w", err)
	}
	log.Warn("the root key lies on the machine of a running service, which does not need it: whoever breaks in can try its passphrase; keep it offline", "file", path)
	return nil
}
