package cli

import (
	"context"
	"errors"
	"fmt"

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
				if err := a.confirmDeactivation(cmd.Context(), d, id, args[0]); err != nil {
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

// confirmDeactivation asks on the terminal whether to deactivate the peer with the given ID, if that would change anything.
// Without a terminal it asks nothing, because scripts of earlier versions give no --yes, and refuses the beginning of an ID,
// which may not be that of the peer that was meant when the script was written.
func (a *app) confirmDeactivation(ctx context.Context, d *node.Dir, id, text string) error {
	if !isTerminal(a.stdin) {
		return checkWholeID(id, text)
	}
	p, err := d.Peer(id)
	if err != nil || p.SubCA == nil || p.Deactivated != "" {
		return nil // nothing is changed, and DeactivatePeer returns the reason
	}
	a.printMessage("Peer %s, %s: its connections are cut, no message goes to it or comes from it any more,\n"+
		"and it can not become a peer again.", node.KnownPeer{ID: id, Name: p.Name}, p.Identity.Type)
	return a.confirm(ctx, fmt.Sprintf("Deactivate %s for good?", id), "the peer is as it was")
}
