package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/pki"
)

// status implements "peerlink" without a command: in a node's directory it prints the node's state and the next step,
// elsewhere the help.
func (a *app) status(cmd *cobra.Command) error {
	d, err := a.open()
	if errors.Is(err, node.ErrNotNode) {
		return cmd.Help()
	}
	if err != nil {
		return err
	}
	keyAt := a.keyPath()
	if _, err := os.Stat(keyAt); err != nil {
		keyAt = "not here (commands that sign want --key)"
	}
	report, err := check.Run(cmd.Context(), a.dir, check.Options{KeyFile: a.keyFile})
	if err != nil {
		return err
	}
	a.table([][2]string{
		{"node", d.Identity().String()},
		{"fingerprint", pki.Fingerprint(d.Root().PublicKey)},
		{"root key", keyAt},
		{"directory", fmt.Sprintf("%d problems, %d warnings (\"peerlink check\")", report.Count(check.Problem), report.Count(check.Warning))},
	})
	ids, err := d.PeerIDs()
	if err != nil {
		return err
	}
	next := nextStep(d, ids, report)
	if len(ids) > 0 {
		a.print("")
		rows, names := [][]string{{"PEER", "TYPE", "STATE", ""}}, []string{}
		for _, id := range ids {
			p, err := d.Peer(id)
			if err != nil {
				name, _ := d.PeerName(id)
				rows, names = append(rows, []string{id, "", "unreadable", err.Error()}), append(names, name)
				continue
			}
			names = append(names, p.Name)
			rows = append(rows, []string{id, p.Identity.Type.String(), p.State(), waitingFor(p)})
		}
		a.columns(nameColumn(rows, names))
	}
	a.print("\nNext: %s", next)
	return nil
}

// waitingFor returns a description of what a peering waits for, or of its end if the peer is
// deactivated.
func waitingFor(p *node.Peer) string {
	switch {
	case p.Deactivated != "":
		return "since " + p.Deactivated
	case p.SubCA == nil:
		return "waiting for its owner to send the certificate for us"
	case p.StompErr != nil:
		return "waiting for an info-bundle with a valid stomp.toml"
	case !p.Active:
		return "waiting for \"peerlink serve\""
	}
	return ""
}

// nextStep returns the advice for the operator.
func nextStep(d *node.Dir, ids []string, report *check.Report) string {
	if report.Count(check.Problem) > 0 {
		return "see what is wrong with \"peerlink check\"."
	}
	if len(report.Expiries) > 0 && report.Expiries[0].DaysLeft <= expirySoonDays {
		e := report.Expiries[0]
		if e.What == "root-ca.crt" || strings.HasPrefix(e.What, "peers/") {
			return fmt.Sprintf("%s ends in %d days: see \"peerlink check\".", e.What, e.DaysLeft)
		}
		return fmt.Sprintf("%s ends in %d days: make a new server certificate (\"peerlink server-cert issue\").", e.What, e.DaysLeft)
	}
	if len(ids) == 0 {
		return "make an info-bundle (\"peerlink bundle create\"), exchange it with another node's owner, and\nsign theirs (\"peerlink peer sign\")."
	}
	for _, id := range ids {
		switch p, err := d.Peer(id); {
		case err != nil:
			return fmt.Sprintf("look at %s: %v.", id, err)
		case p.State() == "signed":
			return fmt.Sprintf("send %s to the owner of %s, and register the\ncertificate that they send you (\"peerlink peer register\").", d.IssuedFile(id), id)
		case p.State() == "registered":
			return "start \"peerlink serve\" (with a certificate from \"peerlink server-cert issue\")."
		}
	}
	return "nothing. See that \"peerlink serve\" is running, and that the root key has a backup (\"peerlink key drill\")."
}
