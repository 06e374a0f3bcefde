package cli

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"

	"github.com/spf13/cobra"

	"peerlink/broker/embedded"
	"peerlink/internal/guard"
	"peerlink/node"
	"peerlink/node/pki"
)

// stateFlag adds the flag that names the state folder.
func (a *app) stateFlag(c *cobra.Command, v *string) {
	c.Flags().StringVar(v, "state", "", "`DIR` for queued messages, outside the node's directory; default "+stateBase()+"/<node ID>")
	fromEnv(c.Flags(), "state", "PEERLINK_STATE")
}

// stateBase is the folder in which each node has its state folder by default.
func stateBase() string {
	if v := os.Getenv("XDG_STATE_HOME"); filepath.IsAbs(v) {
		return filepath.Join(v, "peerlink")
	}
	home, err := os.UserHomeDir()
	switch {
	case runtime.GOOS == "windows" || runtime.GOOS == "darwin":
		if dir, err := os.UserConfigDir(); err == nil {
			return filepath.Join(dir, "peerlink")
		}
	case os.Geteuid() == 0 || err != nil:
		return "/var/lib/peerlink"
	}
	return filepath.Join(home, ".local", "state", "peerlink")
}

// defaultState is the node's state folder unless another one is named.
func defaultState(d *node.Dir) string { return filepath.Join(stateBase(), d.Identity().ID) }

// stateFolder names the node's state folder. One in which others can put files,
// where there is one, is refused: they could have the passcode and the messages
// go elsewhere.
func stateFolder(d *node.Dir, dir string) (string, error) {
	if dir == "" {
		dir = defaultState(d)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := guard.CheckFolder(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("the state folder: %w", err)
	}
	return dir, nil
}

// openState makes the node's state folder, readable by its owner only.
func openState(d *node.Dir, dir string) (string, error) {
	dir, err := stateFolder(d, dir)
	if err != nil {
		return "", err
	}
	_, missing := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("the folder for messages: %w; name another with --state", err)
	}
	if err := guard.CheckPrivateFolder(dir); err != nil {
		if missing != nil {
			os.Remove(dir)
		}
		return "", fmt.Errorf("the state folder: %w", err)
	}
	return dir, nil
}

// warnOpenDirectory warns if every user can change the node's directory, and so have
// its messages sent to himself. It may have been put there by other means, such as a
// container's, so it is not refused.
func warnOpenDirectory(dir string, log *slog.Logger) {
	peers := filepath.Join(dir, "peers")
	folders := []string{dir, peers, filepath.Join(dir, "db"), filepath.Join(dir, "nodeinfo")}
	entries, _ := os.ReadDir(peers)
	for _, e := range entries {
		folders = append(folders, filepath.Join(peers, e.Name()))
	}
	if open := guard.OpenToAll(folders...); open != "" {
		log.Warn("every user can replace files in the node's directory, such as the certificates and addresses of peers: \"chmod -R o-w\" prevents that", "folder", open)
	}
}

// warnOpenState warns if a group can put files into the state folder. It may be a group
// of the operator's choice, so it is not refused.
func warnOpenState(state string, log *slog.Logger) {
	if guard.OpenToGroup(state) {
		log.Warn("a group can replace files in the state folder, such as messages and the passcode of applications: \"chmod 700\" prevents that", "folder", state)
	}
}

// storeOwner names the node in its message store. An accounting authority chooses
// its ID, so the ID alone does not say which node it is.
func storeOwner(d *node.Dir) string {
	return d.Identity().String() + ", root key " + pki.Fingerprint(d.Root().PublicKey)
}

// openStore opens the node's message store, and says what to do if it is that of
// another node.
func openStore(d *node.Dir, path string, o embedded.Options) (*embedded.Store, error) {
	o.Owner = storeOwner(d)
	s, err := embedded.Open(path, o)
	if errors.Is(err, embedded.ErrOwner) {
		err = fmt.Errorf("%w; name this node's own state folder with --state", err)
	}
	return s, err
}

// storePath is the file of the embedded broker in a state folder.
func storePath(state string) string { return filepath.Join(state, "messages.db") }
