package cli

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/broker/embedded"
	"peerlink/internal/durable"
	"peerlink/internal/guard"
	"peerlink/node"
	"peerlink/node/pki"
)

// stateFlag adds the flag for the state folder.
func (a *app) stateFlag(c *cobra.Command, v *string) {
	other := stateBase() + "/<node ID>"
	if c.Name() != serveName {
		other = "that of the service that runs for the node's directory, or " + other
	}
	c.Flags().StringVar(v, "state", "", "`DIR` for queued messages, outside the node's directory, not used with RabbitMQ; default "+other)
	fromEnv(c.Flags(), "state", "PEERLINK_STATE")
}

// stateBase returns the folder that contains the default state folders of nodes.
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

// defaultState returns the node's default state folder.
func defaultState(d *node.Dir) string { return filepath.Join(stateBase(), d.Identity().ID) }

// stateFolder returns the path of the node's state folder. It fails if other users can create files in the folder or
// replace it, because they could redirect the passcode and the messages.
func stateFolder(d *node.Dir, dir string) (string, error) {
	if dir == "" {
		dir = defaultState(d)
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return "", err
	}
	if err := guard.CheckFolderPath(dir); err != nil {
		return "", fmt.Errorf("the state folder: %w", err)
	}
	return dir, nil
}

// openState returns the path of the node's state folder. It creates the folder, accessible by its
// owner only, if it does not exist.
func openState(d *node.Dir, dir string) (string, error) {
	dir, err := stateFolder(d, dir)
	if err != nil {
		return "", err
	}
	_, statErr := os.Stat(dir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return "", fmt.Errorf("the state folder: %w; name another with --state", durable.ExplainFull(filepath.Dir(dir), err))
	}
	if err := guard.CheckPrivateFolder(dir); err != nil {
		if statErr != nil { // the folder was created here
			os.Remove(dir)
		}
		return "", fmt.Errorf("the state folder: %w", err)
	}
	return dir, nil
}

// warnOpenDirectory warns if every user can change a folder of the node's directory, and thus
// redirect its messages. It is not an error, because the modes may not be configurable, for
// example in a container.
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

// warnOpenState warns if a group can create files in the state folder. It is not an error, because the operator may have
// chosen the group.
func warnOpenState(state string, log *slog.Logger) {
	if guard.OpenToGroup(state) {
		log.Warn("a group can replace files in the state folder, such as messages and the passcode of applications: \"chmod 700\" prevents that", "folder", state)
	}
}

// warnUnusedStore warns if the node's embedded store contains messages, which a service on RabbitMQ
// does not send.
func warnUnusedStore(d *node.Dir, state string, log *slog.Logger) {
	if state == "" {
		state = defaultState(d)
	}
	w, err := embedded.ReadWaiting(storePath(state))
	switch {
	case err != nil:
		log.Warn("can not find out whether messages wait in the embedded broker, which this service does not use", "state", state, "err", err)
	case w != embedded.Waiting{}:
		log.Warn("messages in the embedded broker are not sent or delivered, because this service uses RabbitMQ: \"peerlink state export\" moves them there; or run \"peerlink serve\" with --broker embedded and this state folder until it is empty, see docs/operations.md",
			"state", state, "waiting", w.Messages, "set_aside", w.SetAside, "maybe_more", w.Inexact)
	}
}

// warnStateInside warns if the state folder is inside the node's directory, which operators keep under version control
// and copy between machines. It is not an error, because earlier versions of peerlink accepted it.
func warnStateInside(d *node.Dir, state string, log *slog.Logger) {
	if isInside(d.Path(), storePath(state)) {
		log.Warn("the state folder is inside the node's directory: copies and commits of the directory have the messages and the passcode of applications too, and a restored one sends old messages again; move it elsewhere while the service is stopped, and name it with --state", "state", state)
	}
}

// storeOwner returns the identifier of the node in its message store. The node ID is not sufficient, because the ID of an
// accounting authority is chosen and not derived from its root key.
func storeOwner(d *node.Dir) string {
	return d.Identity().String() + rootKeyOfOwner + pki.Fingerprint(d.Root().PublicKey)
}

// rootKeyOfOwner is what the identifier of [storeOwner] has between the node and the fingerprint of its root key.
const rootKeyOfOwner = ", root key "

// formerOwner returns the recorded owner of a message store. err is the error of opening the store for the node. ok reports
// whether the owner is a node of the same type and ID with another root key.
func formerOwner(d *node.Dir, err error) (owner string, ok bool) {
	var other *embedded.OwnerError
	if !errors.As(err, &other) {
		return "", false
	}
	return other.Recorded, strings.HasPrefix(other.Recorded, d.Identity().String()+rootKeyOfOwner) && other.Recorded != storeOwner(d)
}

// openStore opens the node's message store. If the store is that of another node, the error has advice.
func openStore(d *node.Dir, path string, o embedded.Options) (*embedded.Store, error) {
	o.Owner = storeOwner(d)
	s, err := embedded.Open(path, o)
	return s, adviseOnOwner(d, err)
}

// adviseOnOwner adds advice to err, an error of opening the node's message store, if the store is that of another node.
func adviseOnOwner(d *node.Dir, err error) error {
	if !errors.Is(err, embedded.ErrOwner) {
		return err
	}
	err = fmt.Errorf("%w; name this node's own state folder with --state", err)
	if _, ok := formerOwner(d, err); ok {
		err = fmt.Errorf("%w; or, if this node has taken the place of that one, give it the messages with \"peerlink state adopt\", see docs/rootkeylost.md", err)
	}
	return err
}

// storePath returns the path of the embedded broker's file in a state folder.
func storePath(state string) string { return filepath.Join(state, "messages.db") }
