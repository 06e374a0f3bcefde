package cli

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/broker/embedded"
	"peerlink/internal/terminal"
	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/pki"
)

// status implements "peerlink" without a command: in a node's directory it prints the node's state, that of the running
// service, and what to do next, elsewhere the help.
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
		ID: d.Identity().ID, Type: d.Identity().Type.String(), Fingerprint: pki.Fingerprint(d.Root().PublicKey), Words: fingerprintWords(d.Root().PublicKey),
		Problems: report.Count(check.Problem), Warnings: report.Count(check.Warning),
		Peers: statesOf(d, ids),
	}
	stop = a.working("Asking the service")
	s.Services = askServices(cmd.Context(), d)
	facts := situation{dir: d, peers: s.Peers, report: report, services: s.Services}
	if len(s.Services) == 0 {
		facts.waiting, _ = embedded.ReadWaiting(storePath(stateOf(d))) // a damaged store is for "doctor"
	}
	s.Steps = facts.steps(cmd.Context())
	s.Next = s.Steps[0]
	stop()
	if _, err := os.Stat(a.keyPath()); err == nil {
		s.RootKey = a.keyPath()
	}
	if asJSON {
		return a.json(s)
	}
	a.showStatus(d, s)
	return nil
}

// nodeStatus is the state of a node, as its directory and its services show it, in JSON.
type nodeStatus struct {
	ID          string          `json:"id"`
	Type        string          `json:"type"`
	Fingerprint string          `json:"fingerprint"`
	Words       string          `json:"fingerprint_words"`
	RootKey     string          `json:"root_key,omitempty"` // the file; empty if it is not there
	Problems    int             `json:"problems"`           // found by the check of the directory
	Warnings    int             `json:"warnings"`
	Peers       []peerState     `json:"peers"`
	Services    []serviceStatus `json:"services"` // that run for the directory
	Next        string          `json:"next"`     // advice for the operator
	Steps       []string        `json:"steps"`    // all advice, the most urgent first
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
	rows := append([][2]string{{"node", d.Identity().String()}}, fingerprintRows(s.Fingerprint, s.Words)...)
	rows = append(rows, [][2]string{
		{"root key", keyAt},
		{"directory", fmt.Sprintf("%d problems, %d warnings (\"peerlink check\")", s.Problems, s.Warnings)},
	}...)
	for _, service := range s.Services {
		rows = append(rows, [2]string{"service", service.line()})
	}
	if len(s.Services) == 0 {
		rows = append(rows, [2]string{"service", "none runs here for this directory"})
	}
	a.table(rows)
	if len(s.Peers) > 0 {
		a.print("")
		peers := &grid{columns: []column{{title: "PEER"}, nameColumn, {title: "TYPE", drop: 1}, {title: "STATE"}, {optional: true, cut: 40}}}
		for _, p := range s.Peers {
			peers.add(p.ID, p.Name, p.Type, p.State, p.Note)
		}
		a.showGrid(peers)
	}
	a.print("\nNext: %s", terminal.Line(s.Next))
	for _, step := range s.Steps[1:] {
		a.print("Then: %s", terminal.Line(step))
	}
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
