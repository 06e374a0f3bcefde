package cli

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/spf13/cobra"

	"peerlink/admin"
	"peerlink/internal/excerpt"
	"peerlink/internal/terminal"
)

// adminFlags are the flags for the admin address of a running service.
type adminFlags struct{ address, state string }

func (a *app) adminFlags(c *cobra.Command, f *adminFlags) {
	c.Flags().StringVar(&f.address, "admin", "", "`ADDRESS` that \"serve\" was given with --admin; default that of the service that runs for the node's directory")
	fromEnv(c.Flags(), "admin", "PEERLINK_ADMIN")
	a.stateFlag(c, &f.state)
}

// adminClient returns a client of the running service given by the flags. It returns an error if the service belongs to
// another node than the node's directory, unless there is no such directory.
func (a *app) adminClient(cmd *cobra.Command, f adminFlags) (*admin.Client, error) {
	address := f.address
	if address == noAdmin {
		return nil, usagef("--admin %q: expected the admin address of a running service", noAdmin)
	}
	if address == "" {
		found, err := a.defaultAdmin(cmd.Context(), f.state)
		if err != nil {
			return nil, err
		}
		address = found
	}
	where, err := admin.ParseAddress(address)
	if err != nil {
		return nil, usagef("--admin: %v", err)
	}
	client := admin.NewClient(where)
	return client, a.checkService(cmd, client)
}

// checkService returns an error if a running service belongs to another node than the node's directory. It compares nothing
// if there is no node's directory and the operator has not named one.
func (a *app) checkService(cmd *cobra.Command, client *admin.Client) error {
	d, err := a.openIfAny(cmd)
	if d == nil || err != nil {
		return err
	}
	l, err := client.Links(cmd.Context())
	if err != nil {
		return explainNoServer(err)
	}
	own := d.Identity()
	if l.ID != own.ID || l.Type != own.Type.String() {
		return fmt.Errorf("the service there is that of %s %s, and this node is %s: name this node's own --state or --admin, or the other node's directory with --dir",
			excerpt.Of(l.Type), excerpt.Of(l.ID), own)
	}
	return nil
}

// defaultAdmin returns the admin address of the service with the given state folder. Without one it
// returns that of the service that runs for the node's directory, or of the default state folder if
// none is recorded. Unlike stateFolder, it does not check who can change the folder, and it does not
// need the node's directory if the folder is given.
func (a *app) defaultAdmin(ctx context.Context, state string) (string, error) {
	if state == "" {
		d, err := a.open()
		if err != nil {
			return "", err
		}
		if found, err := a.findAdmin(ctx, d); err != nil || found != "" {
			return found, err
		}
		state = defaultState(d)
	}
	state, err := filepath.Abs(state)
	return adminSocket(state), err
}

func (a *app) logLevelCommand() *cobra.Command {
	var f adminFlags
	var asJSON bool
	c := &cobra.Command{
		Use:   "log-level [LEVEL]",
		Short: "Show or change the log level of the running service",
		Long: `Shows the log level of the running "peerlink serve", or changes it to error,
warning, info or debug until it ends.

Without an admin address, SIGUSR1 changes the level to debug, and SIGUSR2 back to
the one that the service was started with.`,
		Args: someArgs(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 {
				if _, err := admin.ParseLevel(args[0]); err != nil {
					return usagef("%v", err)
				}
			}
			client, err := a.adminClient(cmd, f)
			if err != nil {
				return err
			}
			if len(args) == 0 {
				level, err := client.LogLevel(cmd.Context())
				if err != nil {
					return explainNoServer(err)
				}
				return a.result(asJSON, map[string]string{"level": level}, terminal.Line(level))
			}
			err = explainNoServer(client.SetLogLevel(cmd.Context(), args[0]))
			if err == nil && asJSON {
				err = a.json(map[string]string{"level": args[0]})
			}
			return err
		},
	}
	jsonFlag(c, &asJSON)
	a.adminFlags(c, &f)
	return c
}

// explainNoServer adds advice to [admin.ErrNoServer]. It returns all other errors, and nil,
// unchanged.
func explainNoServer(err error) error {
	if errors.Is(err, admin.ErrNoServer) {
		return fmt.Errorf("%w; is \"peerlink serve\" running, with the same --state or --admin, and by the same user?", err)
	}
	return err
}
