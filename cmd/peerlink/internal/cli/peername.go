package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"peerlink/node"
)

// openPeer opens the node's directory, and returns the ID of the peer that the operator means by text:
// its ID, the beginning of it, or its name.
func (a *app) openPeer(text string) (d *node.Dir, id string, err error) {
	if d, err = a.open(); err != nil {
		return nil, "", err
	}
	id, err = d.FindPeer(text)
	return d, id, err
}

func (a *app) peerNameCommand() *cobra.Command {
	var remove, asJSON bool
	c := &cobra.Command{
		Use:   "name PEER [NAME]",
		Short: "Give a peer a name, or show it",
		Long: `Gives a peer a name, which is shown beside its ID, and which every command takes
in place of the ID. Without NAME, the peer's name is shown. Only this node knows
it: the file is peers/<ID>/name.txt. No connection ends when it changes.

A name has 1 to 64 printable characters, not only hex digits, and differs from
those of all other peers in more than the case of letters.

Commands that take a peer accept its ID, at least the first four digits of it if
no other peer's ID begins with them, or the name.`,
		Example: `  peerlink peer name 1234abcd "Harbour Bank"
  peerlink peer show "harbour bank"
  peerlink peer name --remove 1234`,
		Args: someArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if remove && len(args) == 2 {
				return usagef("--remove removes the name, and %q is given: expected one of the two", args[1])
			}
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			if !remove && len(args) == 1 {
				return a.showPeerName(d, id, asJSON)
			}
			name := append(args, "")[1]
			if !remove && name == "" {
				return usagef("the name is empty: --remove removes a name")
			}
			if err := d.SetPeerName(cmd.Context(), id, name); err != nil {
				return err
			}
			if remove {
				a.printMessage("Peer %s has no name.", id)
			} else {
				a.printMessage("Peer %s has the name %q.", id, name)
			}
			return a.changedPeer(d, id, asJSON)
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "remove the peer's name")
	jsonFlag(c, &asJSON)
	return c
}

// showPeerName prints the name of a peer. It returns an error if the peer's file of the name is not valid.
func (a *app) showPeerName(d *node.Dir, id string, asJSON bool) error {
	name, err := d.PeerName(id)
	if err != nil {
		return fmt.Errorf("peer %s has no name: %w", id, err)
	}
	if asJSON {
		return a.changedPeer(d, id, asJSON)
	}
	if name == "" {
		a.printMessage("Peer %s has no name.", id)
		return nil
	}
	a.print("%s", name)
	return nil
}

// nameColumn is the column of a table for the names of peers.
var nameColumn = column{title: "NAME", optional: true, cut: 16}
