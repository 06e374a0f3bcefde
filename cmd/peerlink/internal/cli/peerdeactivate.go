package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"peerlink/node"
)

func (a *app) peerDeactivateCommand() *cobra.Command {
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "deactivate PEER",
		Short: "End the link with a peer, for good",
		Long: `Marks a peer as deactivated. Its connections are cut, no message goes to it or
comes from it any more, and it can not become a peer again: this is the only
revocation there is.

On a terminal it asks first, unless there is --yes. Without a terminal it does not
ask, and PEER has to be the whole ID or the name, unless there is --yes.`,
		Args: someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			if !yes {
				possible := func(p *node.Peer) bool { return p.SubCA != nil && p.Deactivated == "" }
				if err := a.confirmPeer(cmd.Context(), d, id, args[0], possible, "its connections are cut, no message goes to it or comes from it any more,\nand it can not become a peer again.", "Deactivate %s for good?"); err != nil {
					return err
				}
			}
			changed, err := d.DeactivatePeer(cmd.Context(), id)
			if err != nil {
				return err
			}
			if changed {
				a.printMessage("Peer %s is deactivated, for good. A running \"peerlink serve\" cuts its link within seconds.", id)
			} else {
				a.printMessage("Peer %s was deactivated already.", id)
			}
			return errors.Join(a.changedPeer(d, id, asJSON), a.updateKustomizeOf(d, id))
		},
	}
	yesFlag(c, &yes)
	jsonFlag(c, &asJSON)
	return a.kustomizeFlag(c)
}
