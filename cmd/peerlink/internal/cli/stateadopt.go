package cli

import (
	"context"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/broker/embedded"
	"peerlink/node"
	"peerlink/node/pki"
)

// adoptResult is the output of "state adopt".
type adoptResult struct {
	State    string `json:"state"`                     // the state folder
	RootKey  string `json:"root_key"`                  // fingerprint of the root key of the node that the messages belong to now
	Former   string `json:"former_root_key,omitempty"` // and of the one that they belonged to; "" if they were the node's already
	Messages int64  `json:"messages"`
	SetAside int64  `json:"set_aside"`
}

func (a *app) stateAdoptCommand() *cobra.Command {
	var state string
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "adopt",
		Short: "Take over the messages of the node with the same ID and another root key",
		Long: `Makes the messages in a state folder belong to this node, if they belong to a node of
the same type with the same ID and another root key: an accounting authority whose
root key was lost, and that has begun again with a new one (docs/rootkeylost.md). The
messages of any other node are refused. No service may be running with the folder.

From then on the service of the former node is refused there, and what waits is sent,
by the service of this node, to the peers with the same IDs.

On a terminal it shows the fingerprints of both root keys and asks first, unless there
is --yes. Without a terminal, --yes is needed. If it is interrupted, run it again.`,
		Example: "  peerlink -C new-node state adopt --state /var/lib/peerlink/state",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			d, err := a.open()
			if err != nil {
				return err
			}
			path, err := existingStore(cmd.Context(), d, state)
			if err != nil {
				return err
			}
			unlock, err := lockState(filepath.Dir(path))
			if err != nil {
				return fmt.Errorf("%w: stop it first", err)
			}
			defer unlock()
			r, err := a.adopt(cmd.Context(), d, path, yes)
			if err != nil {
				return err
			}
			return a.showAdopted(d, r, asJSON)
		},
	}
	a.stateFlag(c, &state)
	yesFlag(c, &yes)
	jsonFlag(c, &asJSON)
	return c
}

// adopt makes the store at path, whose folder is locked, that of the node.
func (a *app) adopt(ctx context.Context, d *node.Dir, path string, yes bool) (r adoptResult, err error) {
	r = adoptResult{State: filepath.Dir(path), RootKey: pki.Fingerprint(d.Root().PublicKey)}
	found, err := embedded.Inspect(path, storeOwner(d))
	if former, ok := formerOwner(d, err); ok {
		r.Former = strings.TrimPrefix(former, d.Identity().String()+rootKeyOfOwner)
		if found, err = embedded.Inspect(path, former); err != nil {
			return r, err
		}
		r.count(found)
		if !yes {
			a.printMessage("%s: %s and %d set aside. They belong to %s with the root key\n  %s\nand will belong to the node in %s, with the root key\n  %s (%s)",
				path, messageCount(int(r.Messages), "", ""), r.SetAside, d.Identity(), r.Former, a.dir, r.RootKey, strings.Join(pki.FingerprintWords(d.Root().PublicKey), " "))
			if err := a.confirm(ctx, "Give this node the messages?", "the messages are as they were"); err != nil {
				return r, err
			}
		}
		log := slog.New(slog.NewTextHandler(a.stderr, &slog.HandlerOptions{Level: slog.LevelWarn}))
		return r, embedded.Adopt(ctx, path, former, storeOwner(d), log)
	}
	if err != nil {
		return r, adviseOnOwner(d, err)
	}
	r.count(found)
	return r, nil
}

// count sets the numbers of messages.
func (r *adoptResult) count(found *embedded.Inspection) {
	for _, q := range found.Queues {
		r.Messages += q.Depth
		r.SetAside += q.SetAside
	}
}

// showAdopted prints what "state adopt" has done.
func (a *app) showAdopted(d *node.Dir, r adoptResult, asJSON bool) error {
	line := fmt.Sprintf("%s: %s and %d set aside belong to %s, root key %s", storePath(r.State), messageCount(int(r.Messages), "", ""), r.SetAside, d.Identity(), r.RootKey)
	if err := a.result(asJSON, r, line); err != nil {
		return err
	}
	if r.Former == "" {
		a.printMessage("They belonged to this node already: nothing was changed.")
		return nil
	}
	a.printMessage("The service of the node with the former root key is refused there from now on.")
	return nil
}
