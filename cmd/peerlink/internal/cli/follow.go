package cli

import (
	"time"

	"github.com/spf13/cobra"

	"peerlink/link"
)

// followFlags adds the flags for fetching the info-bundles that peers publish.
func followFlags(c *cobra.Command, f *followSettings) {
	c.Flags().BoolVar(&f.on, "follow", true, "fetch the info-bundles that peers publish, to find those that have moved")
	c.Flags().BoolVar(&f.local, "follow-local", false, "let peers' URLs lead to loopback, link-local and private addresses")
	c.Flags().DurationVar(&f.after, "follow-after", link.DefaultFollowAfter, "for what `TIME` a peer must be out of reach before its info-bundle is fetched")
	fromEnv(c.Flags(), "follow", "PEERLINK_FOLLOW")
	fromEnv(c.Flags(), "follow-local", "PEERLINK_FOLLOW_LOCAL")
	fromEnv(c.Flags(), "follow-after", "PEERLINK_FOLLOW_AFTER")
}

type followSettings struct {
	on    bool
	local bool          // a peer's URLs may lead to addresses that are not public
	after time.Duration // how long a peer must be unreachable before its info-bundle is fetched
}

func (f *followSettings) config() (link.Follow, error) {
	if f.after <= 0 {
		return link.Follow{}, usagef("--follow-after %v: expected more than 0", f.after)
	}
	return link.Follow{Off: !f.on, Local: f.local, After: f.after}, nil
}

func (a *app) peerFollowCommand() *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "follow PEER on|off",
		Short: "Say whether a peer's published info-bundle is fetched when it moves",
		Long: `A peer may name, in its stomp.toml, where it publishes its newest info-bundle.
"peerlink serve" fetches that when the peer can not be reached, and now and then,
and takes over a newer one that is signed with the peer's root key, so that a
peer that moves is found again. With "off" it is not fetched; hand newer bundles
of this peer to "peerlink peer sign".`,
		Args: someArgs(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] != "on" && args[1] != "off" {
				return usagef("%q: expected on or off", args[1])
			}
			d, id, err := a.openPeer(args[0])
			if err != nil {
				return err
			}
			if err := d.SetFollow(cmd.Context(), id, args[1] == "on"); err != nil {
				return err
			}
			a.printMessage("Following peer %s is %s.", id, args[1])
			return a.changedPeer(d, id, asJSON)
		},
	}
	jsonFlag(c, &asJSON)
	return c
}
