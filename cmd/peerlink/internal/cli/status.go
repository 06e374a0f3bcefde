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
func (a *app) status(cmd *cobra.Command, asJSON bool) error {
	d, err := a.open()
	if errors.Is(err, node.ErrNotNode) && !asJSON {
		return cmd.Help()
	}
	if err != nil {
		return err
	}
	stop := a.working("Checking the directory")
	report, err := check.Run(cmd.Context(), a.dir, check.Options{KeyFile: a.keyFile})
	stop()
	if err != nil {
		return err
	}
	ids, err := d.PeerIDs()
	if err != nil {
		return err
	}
	s := nodeStatus{
		ID: d.Identity().ID, Type: d.Identity().Type.String(), Fingerprint: pki.Fingerprint(d.Root().PublicKey),
		Problems: report.Count(check.Problem), Warnings: report.Count(check.Warning),
		Peers: statesOf(d, ids), Next: nextStep(d, ids, report),
	}
	if _, err := os.Stat(a.keyPath()); err == nil {
		s.RootKey = a.keyPath()
	}
	if asJSON {
		return a.json(s)
	}
	a.showStatus(d, s)
	return nil
}

// nodeStatus is the state of a node, as its directory shows it, in JSON.
type nodeStatus struct {
	ID          string      `json:"id"`
	Type        string      `json:"type"`
	Fingerprint string      `json:"fingerprint"`
	RootKey     string      `json:"root_key,omitempty"` // the file; empty if it is not there
	Problems    int         `json:"problems"`           // found by the check of the directory
	Warnings    int         `json:"warnings"`
	Peers       []peerState `json:"peers"`
	Next        string      `json:"next"` // advice for the operator
}

// peerState is the state of a peering in JSON.
type peerState struct {
	ID    string `json:"id"`
	Name  string `json:"name,omitempty"`
	Type  string `json:"type,omitempty"` // empty if the peer can not be read
	State string `json:"state"`          // "unreadable" if the peer can not be read, or the result of [node.Peer.State]
	Note  string `json:"note,omitempty"` // what the peering waits for, or why the peer can not be read
}

func statesOf(d *node.Dir, ids []string) []peerState {
	states := make([]peerState, 0, len(ids))
	for _, id := range ids {
		p, err := d.Peer(id)
		if err != nil {
			name, _ := d.PeerName(id)
			states = append(states, peerState{ID: id, Name: name, State: "unreadable", Note: err.Error()})
			continue
		}
		states = append(states, peerState{id, p.Name, p.Identity.Type.String(), p.State(), waitingFor(p)})
	}
	return states
}

func (a *app) showStatus(d *node.Dir, s nodeStatus) {
	keyAt := s.RootKey
	if keyAt == "" {
		keyAt = "not here (commands that sign want --key)"
	}
	a.table([][2]string{
		{"node", d.Identity().String()},
		{"fingerprint", s.Fingerprint},
		{"root key", keyAt},
		{"directory", fmt.Sprintf("%d problems, %d warnings (\"peerlink check\")", s.Problems, s.Warnings)},
	})
	if len(s.Peers) > 0 {
		a.print("")
		peers := &grid{columns: []column{{title: "PEER"}, nameColumn, {title: "TYPE", drop: 1}, {title: "STATE"}, {optional: true, cut: 40}}}
		for _, p := range s.Peers {
			peers.add(p.ID, p.Name, p.Type, p.State, p.Note)
		}
		a.showGrid(peers)
	}
	a.print("\nNext: %s", s.Next)
}

// waitingFor returns a description of what a peering waits for, or since when the peer is
// suspended or deactivated.
func waitingFor(p *node.Peer) string {
	switch {
	case p.Deactivated != "":
		return "since " + p.Deactivated
	case p.Suspended != nil:
		return strings.TrimSuffix("since "+p.Suspended.Since+": "+p.Suspended.Reason, ": ")
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
