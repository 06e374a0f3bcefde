package cli

import (
	"github.com/spf13/cobra"

	"peerlink/node"
)

func (a *app) peerRemoveCommand() *cobra.Command {
	var yes, asJSON bool
	c := &cobra.Command{
		Use:   "remove PEER",
		Short: "Remove a peer that was signed by mistake, and is not registered",
		Long: `Removes a peer that was signed, but with which there was never a link, because no
certificate from it was registered. A peer that has taken the place of another one
("peerlink peer replace") is not removed, but replaced in turn.

What was signed can not be unsigned: the certificate stays in db/index and certs/,
and at an accounting authority its subnet stays reserved. The peer can not connect
with it, because it is not a peer any more. It can be signed again, and then gets
the same subnet. The server keys that it has revoked stay revoked, and an older
info-bundle than the newest one is not signed (db/removed).

init-ca of the reference implementation releases the subnet of a debtors agent
that is not a peer, and its scripts may then give it to another one. Run
"peerlink init" after it, which reserves the subnet again.

swpt_stomp of the reference implementation accepts the certificate again if a
node with the same ID becomes a peer, whatever its root key is; peerlink does not.

On a terminal it asks first, unless there is --yes. Without a terminal it does not
ask, and PEER has to be the whole ID or the name, unless there is --yes.`,
		Example: "  peerlink peer remove 1234abcd",
		Args:    someArgs(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			if !yes {
				possible := func(p *node.Peer) bool { return d.CheckRemovable(p) == nil }
				if err := a.confirmPeer(cmd.Context(), d, id, args[0], possible, "its directory is removed. The certificate that it was given stays signed.", "Remove %s?"); err != nil {
					return err
				}
			}
			removed, err := d.RemovePeer(cmd.Context(), id)
			if err != nil {
				return err
			}
			r := removedPeer{removed.Identity.ID, removed.Name, removed.Identity.Type.String(), removed.Serial, removed.Subnet}
			if err := a.result(asJSON, r, r.ID); err != nil {
				return err
			}
			a.printMessage("%s is not a peer any more. The certificate that was signed for it stays on record (serial\nnumber %s), and can not be unsigned.", removed.Identity, r.Serial)
			if r.Subnet != "" {
				a.printMessage("Its subnet, %s, stays reserved for it.", r.Subnet)
			}
			return nil
		},
	}
	yesFlag(c, &yes)
	jsonFlag(c, &asJSON)
	return c
}

// removedPeer is a peer that was removed, in JSON.
type removedPeer struct {
	ID     string `json:"id"`
	Name   string `json:"name,omitempty"`
	Type   string `json:"type"`
	Serial string `json:"serial"`           // of the peer certificate that stays on record
	Subnet string `json:"subnet,omitempty"` // stays reserved
}
