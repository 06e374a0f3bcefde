package cli

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/node"
	"peerlink/node/check"
)

// situation is what the advice for the operator follows from.
type situation struct {
	dir      *node.Dir
	peers    []peerState
	report   *check.Report
	services []serviceStatus
	waiting  embedded.Waiting // in the store, if no service runs
}

// maxSteps bounds the advice.
const maxSteps = 10

// allDone is the advice if there is nothing to do.
const allDone = "nothing. See that the root key has a backup (\"peerlink key drill\")."

// steps returns what the operator should do, the most urgent first. There is always one.
func (s *situation) steps(ctx context.Context) []string {
	var steps []string
	if n := s.report.Count(check.Problem); n > 0 {
		steps = append(steps, "see what is wrong in the directory with \"peerlink check\".")
	}
	for i := range s.services {
		steps = append(steps, s.services[i].steps()...)
	}
	steps = append(steps, s.storeSteps()...)
	steps = append(steps, s.announcedSteps(ctx)...)
	steps = append(steps, s.expirySteps()...)
	steps = append(steps, s.peeringSteps()...)
	steps = append(steps, s.serviceSteps()...)
	if len(steps) == 0 {
		return []string{allDone}
	}
	if more := len(steps) - maxSteps; more > 0 {
		steps = append(steps[:maxSteps], fmt.Sprintf("%d more: see \"peerlink links\" and \"peerlink check\".", more))
	}
	return steps
}

// storeSteps returns a step if the messages in a store have no service.
func (s *situation) storeSteps() []string {
	w := s.waiting
	switch {
	case w.SetAside > 0:
		return []string{fmt.Sprintf("%s set aside in the message store, and no service runs: \"peerlink queue list\" shows them.", countOf(w.SetAside, "message is", "messages are"))}
	case w.Messages > 0:
		return []string{fmt.Sprintf("%s in the message store, and no service runs: start \"peerlink serve\".", countOf(w.Messages, "message waits", "messages wait"))}
	}
	return nil
}

// announcedTime bounds the connections to the addresses at which peers are told to connect.
const announcedTime = 5 * time.Second

// announcedSteps returns a step if peers are told other ports than those on which the services listen,
// and no service of this node answers there.
func (s *situation) announcedSteps(ctx context.Context) []string {
	own, err := s.dir.OwnStomp()
	ports := s.listenPorts()
	if err != nil || len(ports) == 0 { // a file with an error has a finding
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, announcedTime)
	defer cancel()
	for _, server := range own.Servers {
		_, port, _ := net.SplitHostPort(server)
		if slices.Contains(ports, port) || link.ProbeSelf(ctx, s.dir, server) == nil {
			return nil
		}
	}
	return []string{fmt.Sprintf("the service listens on port %s, and peers are told to connect to %s (nodeinfo/stomp.toml), where it does not answer: start it with --listen and that port, or correct the file and make a new info-bundle (\"peerlink bundle create\").",
		strings.Join(ports, ", "), strings.Join(own.Servers, ", "))}
}

// listenPorts returns the ports on which the services listen.
func (s *situation) listenPorts() (ports []string) {
	for _, service := range s.services {
		if _, port, err := net.SplitHostPort(service.Listen); err == nil && !slices.Contains(ports, port) {
			ports = append(ports, port)
		}
	}
	return ports
}

// isServerCert reports whether a certificate of the report is one of the node's server certificates.
func isServerCert(e check.Expiry) bool {
	return e.What != "root-ca.crt" && !strings.HasPrefix(e.What, "peers/")
}

func (s *situation) expirySteps() (steps []string) {
	for _, e := range s.report.Expiries {
		switch {
		case e.DaysLeft > expirySoonDays:
		case isServerCert(e):
			steps = append(steps, fmt.Sprintf("%s ends in %d days: renew the server certificate (\"peerlink server-cert renew\").", e.What, e.DaysLeft))
		default:
			steps = append(steps, fmt.Sprintf("%s ends in %d days: see \"peerlink check\".", e.What, e.DaysLeft))
		}
	}
	return steps
}

// peeringSteps returns the steps that are missing before messages can be exchanged with peers.
func (s *situation) peeringSteps() (steps []string) {
	if len(s.peers) == 0 {
		if bundle := s.dir.CurrentBundle(); bundle != "" {
			return []string{fmt.Sprintf("send the info-bundle %s to another node's owner, and add theirs (\"peerlink peer add\").", bundle)}
		}
		return []string{"make an info-bundle (\"peerlink bundle create\"), exchange info-bundles with another node's owner, and add theirs (\"peerlink peer add\")."}
	}
	for _, p := range s.peers {
		switch p.State {
		case "unreadable":
			steps = append(steps, fmt.Sprintf("look at %s: %s.", p.ID, p.Note))
		case "signed":
			steps = append(steps, fmt.Sprintf("send %s to the owner of %s, and add the certificate that they send you (\"peerlink peer add\").", s.dir.IssuedFile(p.ID), p.ID))
		}
	}
	return steps
}

// serviceSteps returns the steps until a service runs.
func (s *situation) serviceSteps() []string {
	switch {
	case len(s.services) > 0:
		return nil
	case !slices.ContainsFunc(s.report.Expiries, isServerCert):
		return []string{"make a server certificate (\"peerlink server-cert issue\"), and start \"peerlink serve\" with it."}
	}
	return []string{"start \"peerlink serve\" with the server certificate. If it runs on another machine, \"peerlink\" there says how it is."}
}
