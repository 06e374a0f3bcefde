package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"peerlink/internal/excerpt"
	"peerlink/internal/terminal"
	"peerlink/node/check"
)

func (a *app) checkCommand() *cobra.Command {
	var o check.Options
	var server check.ServerFiles
	var asJSON bool
	c := &cobra.Command{
		Use:   "check",
		Short: "Look for anything wrong in the node's directory",
		Long: `Compares everything in the node's directory with the specification: every
certificate point by point, the records of what was signed, the subnets, each
peer's state, file modes, and what expires soon. Nothing is changed.
"peerlink init" repairs what is reported as repairable.

The exit code is 1 if there is a problem; warnings and notes alone give 0.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			if server.Key != "" && server.Cert == "" {
				return usagef("--server-key needs --server-cert")
			}
			if server.Cert != "" {
				o.Servers = []check.ServerFiles{server}
			}
			if !a.keyInAgent() { // a key in an agent could be checked only by signing with it
				o.KeyFile = a.keyFile
			}
			stop := a.working("Checking the directory")
			r, err := check.Run(cmd.Context(), a.dir, o)
			stop()
			if err != nil {
				return err
			}
			if asJSON {
				err = a.json(r)
			} else {
				a.showReport(r)
			}
			if err == nil && !r.OK() {
				err = errSilent
			}
			return err
		},
	}
	c.Flags().StringVar(&a.keyFile, "key", "", "the root key `FILE` (default private/root-ca.key in the node's directory)")
	c.Flags().StringVar(&server.Cert, "server-cert", "", "a server certificate `FILE` in use")
	c.Flags().StringVar(&server.Key, "server-key", "", "its key `FILE`")
	jsonFlag(c, &asJSON)
	return c
}

// expirySoonDays is how many days before its expiry a certificate is listed under "Expiring soon".
const expirySoonDays = 60

func (a *app) showReport(r *check.Report) {
	a.print("%s %s", orNone(r.Type), orNone(r.ID))
	if len(r.Peers) > 0 {
		a.print("")
		peers := &grid{columns: []column{{title: "PEER"}, nameColumn, {title: "TYPE", drop: 1}, {title: "STATE"}, {title: "PROBLEMS", number: true}, {optional: true, cut: 40}}}
		for _, p := range r.Peers {
			peers.add(p.ID, p.Name, orNone(p.Type), p.State, fmt.Sprint(p.Problems), p.WaitingFor)
		}
		a.showGrid(peers)
	}
	first := true
	for _, e := range r.Expiries {
		if e.DaysLeft > expirySoonDays {
			continue
		}
		if first {
			a.print("\nExpiring soon:")
			first = false
		}
		a.print("  %s  %s (%d days)", e.NotAfter.UTC().Format(time.DateOnly), terminal.Line(e.What), e.DaysLeft)
	}
	a.print("")
	for _, f := range r.Findings {
		a.print("%s", terminal.Line(excerpt.Limit(f.String(), maxErrorText)))
	}
	a.print("%d problems, %d warnings, %d notes", r.Count(check.Problem), r.Count(check.Warning), r.Count(check.Note))
}
