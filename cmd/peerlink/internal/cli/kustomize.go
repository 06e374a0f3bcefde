package cli

import (
	"path/filepath"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/kustomize"
)

// kustomizeFlag adds the flag --kustomize, for commands that change those properties of a peer that
// the Kustomize files contain.
func (a *app) kustomizeFlag(c *cobra.Command) *cobra.Command {
	c.Flags().BoolVar(&a.kustomize, "kustomize", false, "keep Kustomize files in peers/ (on by itself where there are some)")
	return c
}

// updateKustomizeOf is updateKustomize for the peer with the given ID.
func (a *app) updateKustomizeOf(d *node.Dir, id string) error {
	p, err := d.Peer(id)
	if err != nil {
		return err
	}
	return a.updateKustomize(d, p)
}

// updateKustomize updates the Kustomize files of a registered peer, if the node has such files or the
// flag is set.
func (a *app) updateKustomize(d *node.Dir, p *node.Peer) error {
	peers := filepath.Join(d.Path(), "peers")
	if !a.kustomize && !kustomize.Enabled(peers) {
		return nil
	}
	baseApp, err := kustomize.BaseApp(peers)
	if err != nil {
		return err
	}
	successor := ""
	if p.Deactivated != "" {
		if successor, err = d.CurrentSuccessor(p.Identity.ID); err != nil {
			return err
		}
	}
	err = kustomize.Update(peers, kustomize.Peer{
		ID:          p.Identity.ID,
		Queues:      p.Queues,
		UpdatedAt:   p.UpdatedAt,
		Deactivated: p.Deactivated != "",
		HandedOver:  successor != "",
	}, baseApp)
	if err == nil {
		a.printMessage("Kustomize files in %s are up to date.", peers)
	}
	return err
}
