package cli

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"peerlink/admin"
	"peerlink/internal/socket"
	"peerlink/link"
	"peerlink/node"
)

// serviceStatus is what a running service says about itself, in JSON.
type serviceStatus struct {
	Admin     string   `json:"admin"`            // where it was asked
	Error     string   `json:"error,omitempty"`  // why it has not answered
	Ready     bool     `json:"ready"`            // it can serve its peers, reachable or not
	Problems  []string `json:"troubles"`         // why not
	Warnings  []string `json:"warnings"`         // what should be solved although it is ready
	Listen    string   `json:"listen,omitempty"` // where peers connect
	Links     int      `json:"links"`            // peers
	LinksDown int      `json:"links_down"`       // of them, those in a bad state
	Waiting   int64    `json:"waiting"`          // messages for peers, with the embedded broker
	SetAside  int64    `json:"set_aside"`        // messages, with the embedded broker

	links *admin.Links // nil if it has not answered
}

// askServices returns the state of the services that run for the node's directory.
func askServices(ctx context.Context, d *node.Dir) []serviceStatus {
	list := []serviceStatus{}
	for _, address := range serviceAddresses(ctx, d) {
		where, err := admin.ParseAddress(address)
		if err != nil {
			continue
		}
		s := serviceStatus{Admin: address, Problems: []string{}, Warnings: []string{}}
		l, err := admin.NewClient(where).Links(ctx)
		switch own := d.Identity(); {
		case err != nil:
			s.Error = err.Error()
		case l.ID != own.ID || l.Type != own.Type.String():
			continue
		default:
			s.read(l)
		}
		list = append(list, s)
	}
	return list
}

// serviceAddresses returns the admin addresses of the services that run for the node's directory:
// those that are recorded, or else the one of the environment or of the default state folder.
func serviceAddresses(ctx context.Context, d *node.Dir) (list []string) {
	for _, r := range runningServices(ctx, d) {
		list = append(list, r.Admin)
	}
	if len(list) > 0 {
		return list
	}
	if v := os.Getenv("PEERLINK_ADMIN"); v != "" && v != noAdmin {
		return []string{v}
	}
	address := adminSocket(stateOf(d))
	path := strings.TrimPrefix(address, admin.UnixAddress(""))
	if _, err := os.Stat(path); err == nil && len(path) <= socket.MaxPath {
		return []string{address}
	}
	return nil
}

// stateOf returns the state folder of the environment or else the default one.
func stateOf(d *node.Dir) string {
	if v := os.Getenv("PEERLINK_STATE"); v != "" {
		return v
	}
	return defaultState(d)
}

func (s *serviceStatus) read(l *admin.Links) {
	s.links, s.Ready, s.Listen, s.Links = l, l.Ready, l.Listen, len(l.Peers)
	s.Problems, s.Warnings = append(s.Problems, l.Problems...), append(s.Warnings, l.Warnings...)
	for i := range l.Peers {
		p := &l.Peers[i]
		s.Waiting += l.QueueOf(*p).Messages
		if p.Severity() == link.Bad {
			s.LinksDown++
		}
	}
	for _, q := range l.Queues {
		s.SetAside += q.SetAside
	}
}

// line describes the service on one line.
func (s *serviceStatus) line() string {
	if s.links == nil {
		return "does not answer at " + s.Admin
	}
	parts := []string{"ready"}
	if !s.Ready {
		parts[0] = "NOT READY"
	}
	parts = append(parts, "running for "+admin.Age(s.links.At.Sub(s.links.Since)), fmt.Sprintf("%s, %d down", countOf(int64(s.Links), "link", "links"), s.LinksDown))
	if len(s.links.Queues) > 0 {
		parts = append(parts, fmt.Sprintf("%d messages waiting, %d set aside", s.Waiting, s.SetAside))
	}
	return strings.Join(parts, ", ")
}

// The times for which a message may wait before the operator is told, the same as those of the alerts:
// in a queue that leads to a peer, and in an inbox, until an application consumes it.
const (
	maxQueueAge = 15 * time.Minute
	maxInboxAge = time.Hour
)

// steps returns what the operator should do about the service, the most urgent first.
func (s *serviceStatus) steps() (steps []string) {
	if s.links == nil {
		return []string{fmt.Sprintf("a service is running, and does not answer at %s (%s): look into its log.", s.Admin, s.Error)}
	}
	for _, problem := range s.Problems {
		steps = append(steps, "the service is not ready: "+problem)
	}
	steps = append(steps, s.linkSteps()...)
	steps = append(steps, s.messageSteps()...)
	for _, warning := range s.Warnings {
		steps = append(steps, "look at the broker: "+warning)
	}
	return steps
}

// linkSteps returns a step for each link that is down.
func (s *serviceStatus) linkSteps() (steps []string) {
	for i := range s.links.Peers {
		p := &s.links.Peers[i]
		if p.Severity() != link.Bad {
			continue
		}
		state, direction := p.Out, "out"
		if p.Out.Verdict.Severity() != link.Bad {
			state, direction = p.In, "in"
		}
		step := fmt.Sprintf("the link with %s is down (%s): %s", nameOf(p), direction, state.Sentence(s.links.At, p.LastContact))
		if state.Remedy != "" {
			step += ". What to do: " + state.Remedy
		}
		steps = append(steps, step)
	}
	return steps
}

// nameOf returns the ID and the name of a peer.
func nameOf(p *link.PeerStatus) string {
	if p.Name == "" {
		return p.ID
	}
	return fmt.Sprintf("%s (%s)", p.ID, p.Name)
}

// messageSteps returns steps about messages that are stuck.
func (s *serviceStatus) messageSteps() (steps []string) {
	l := s.links
	if s.SetAside > 0 {
		steps = append(steps, fmt.Sprintf("%s set aside: \"peerlink queue list\" shows where, \"queue show\" why; \"queue retry\" or \"queue drop\" ends that.", countOf(s.SetAside, "message can not be sent and is", "messages can not be sent and are")))
	}
	for i := range l.Peers {
		p := &l.Peers[i]
		// Messages for a peer that this node has suspended are meant to wait.
		if q := l.QueueOf(*p); p.State != "suspended" && q.Oldest != nil && l.At.Sub(*q.Oldest) > maxQueueAge {
			steps = append(steps, fmt.Sprintf("%s for %s, the oldest for %s, and the link is %s: \"peerlink doctor %s\" says why.",
				countOf(q.Messages, "message waits", "messages wait"), nameOf(p), admin.Age(l.At.Sub(*q.Oldest)), p.Out.Sentence(l.At, p.LastContact), p.ID))
		}
		if n := p.Counts.SetAside; len(l.Queues) == 0 && n > 0 {
			steps = append(steps, fmt.Sprintf("%s set aside since the service started: \"peerlink queue show %s --broker URL\" shows whether they are still there.", countOf(int64(n), "message for "+nameOf(p)+" was", "messages for "+nameOf(p)+" were"), p.ID))
		}
	}
	for _, q := range l.Queues {
		if strings.HasSuffix(q.Name, "_in") && q.Oldest != nil && l.At.Sub(*q.Oldest) > maxInboxAge {
			steps = append(steps, fmt.Sprintf("%s in the inbox %s, the oldest for %s: see that the node's applications run and consume it.", countOf(q.Messages, "message waits", "messages wait"), q.Name, admin.Age(l.At.Sub(*q.Oldest))))
		}
	}
	return steps
}

// countOf returns a number with the words for one or several.
func countOf(n int64, one, several string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, several)
}
