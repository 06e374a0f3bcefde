package cli

import "github.com/spf13/cobra"

func (a *app) peerSuspendCommand() *cobra.Command {
	var reason string
	var asJSON bool
	c := &cobra.Command{
		Use:   "suspend PEER",
		Short: "Pause the link with a peer",
		Long: `Pauses the link with a peer, until "peerlink peer resume". A running service ends
its connections in good order, sends nothing to the peer, and refuses the peer's
connections with the reason, which the peer's owner sees. Messages to the peer
stay in their queues, and so do those that applications add meanwhile.

Only peerlink knows this pause: swpt_stomp of the reference implementation does
not read the file SUSPENDED, and goes on if it serves the same directory.`,
		Example: "  peerlink peer suspend 1234abcd --reason 'maintenance until 14:00 UTC'",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			if err := d.SuspendPeer(cmd.Context(), id, reason); err != nil {
				return err
			}
			a.printMessage("The link with %s is suspended. A running \"peerlink serve\" ends its connections within seconds;\nmessages to it wait in their queues. \"peerlink peer resume %s\" ends the pause.", id, id)
			return a.changedPeer(d, id, asJSON)
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "one line of `TEXT` that the peer's owner sees")
	jsonFlag(c, &asJSON)
	return c
}

func (a *app) peerResumeCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:     "resume PEER",
		Short:   "End the pause of the link with a peer",
		Example: "  peerlink peer resume 1234abcd",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			changed, err := d.ResumePeer(cmd.Context(), id)
			if err != nil {
				return err
			}
			date, err := d.Deactivated(id)
			if err != nil {
				return err
			}
			if date != "" {
				a.warnDeactivated(id, date)
			} else if changed {
				a.printMessage("The link with %s is resumed. A running \"peerlink serve\" connects within seconds.", id)
			} else {
				a.printMessage("The link with %s was not suspended.", id)
			}
			return a.changedPeer(d, id, asJSON)
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
