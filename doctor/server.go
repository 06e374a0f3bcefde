package doctor

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"syscall"

	"peerlink/link"
	"peerlink/node/pki"
)

// serverExamination examines one server of a peer.
type serverExamination struct {
	*peerExamination
	*section
	server string
}

func (s *serverExamination) run(ctx context.Context) {
	if s.cfg.Proxy != nil {
		s.pass("dns", s.server, "resolved by the proxy "+s.cfg.Proxy.String()+", not here")
		s.probeFamilies(ctx, []family{{"by proxy", "tcp"}})
		return
	}
	host, _, err := net.SplitHostPort(s.server)
	if err != nil { // not in a stomp.toml that could be read
		s.fail("dns", s.server, err.Error(), peerRemedies["nodeinfo"])
		return
	}
	ips, err := lookUp(ctx, host)
	if err != nil {
		s.fail("dns", s.server, err.Error(), fmt.Sprintf("if other names can be resolved here, ask the owner of %s for its present address, in a new info-bundle: peerlink peer sign BUNDLE.zip", s.id))
		s.skipAll(s.server, "dns", networkChecks[1:]...)
		return
	}
	s.pass("dns", s.server, joinIPs(ips))
	s.probeFamilies(ctx, families(ips))
}

// family is a way to a server: IPv4, IPv6 or the proxy.
type family struct{ name, network string }

// families returns the families of addresses.
func families(ips []netip.Addr) (list []family) {
	if slices.ContainsFunc(ips, netip.Addr.Is4) {
		list = append(list, family{"IPv4", "tcp4"})
	}
	if slices.ContainsFunc(ips, netip.Addr.Is6) {
		list = append(list, family{"IPv6", "tcp6"})
	}
	return list
}

// probeFamilies probes the server by each family of its addresses. If it can be reached by one, the
// other is not needed.
func (s *serverExamination) probeFamilies(ctx context.Context, list []family) {
	probes := make([]link.Probe, len(list))
	reached := false
	for i, f := range list {
		s.probes <- struct{}{}
		probes[i] = s.prober.Probe(ctx, s.peer, s.server, f.network)
		<-s.probes
		reached = reached || !failedAt(&probes[i], link.StageTCP)
	}
	for i, f := range list {
		one := newSection(s.section, s.id)
		r := &probeReport{serverExamination: s, section: one, Probe: &probes[i], subject: s.server + " " + f.name}
		r.tcp(reached)
		for _, c := range one.checks {
			s.add(c.Name, c.Subject, c.State, c.Detail, c.Remedy)
		}
	}
}

func failedAt(p *link.Probe, stage string) bool {
	failed := p.Failed()
	return failed != nil && failed.Name == stage
}

// probeReport makes checks of a [link.Probe].
type probeReport struct {
	*serverExamination
	*section
	*link.Probe
	subject string
}

// failRest fails a check with the failure of the probe, and skips those that follow.
func (r *probeReport) failRest(name, detail, remedy string) {
	r.fail(name, r.subject, detail, remedy)
	r.skipRest(name)
}

func (r *probeReport) skipRest(name string) {
	r.skipAll(r.subject, name, networkChecks[slices.Index(networkChecks, name)+1:]...)
}

func (r *probeReport) tcp(otherFamily bool) {
	failed := r.Failed()
	switch {
	case !failedAt(r.Probe, link.StageTCP) && !failedAt(r.Probe, link.StageDNS):
		to := r.Address
		if r.Proxy != "" {
			to = "through the proxy " + r.Proxy
		}
		r.pass("tcp", r.subject, fmt.Sprintf("%s, %.1f ms", to, 1000*r.seconds(link.StageTCP)))
		r.tls()
	case otherFamily && isNoRoute(failed.Err):
		r.warn("tcp", r.subject, failed.Detail+"; the other family of addresses works", "nothing has to be done: this machine has no route for these addresses")
	case otherFamily:
		r.warn("tcp", r.subject, failed.Detail+"; the other family of addresses works", "tell the owner of "+r.id+" that these addresses do not answer")
	default:
		r.failRest("tcp", failed.Detail, r.Failure.Remedy)
	}
}

func isNoRoute(err error) bool {
	return errors.Is(err, syscall.ENETUNREACH) || errors.Is(err, syscall.EHOSTUNREACH)
}

func (r *probeReport) seconds(stage string) float64 {
	for _, s := range r.Stages {
		if s.Name == stage {
			return s.Seconds
		}
	}
	return 0
}

// tls reports the handshake as such. If the server has shown certificates, TLS works.
func (r *probeReport) tls() {
	if r.Shown == nil {
		r.failRest("tls", r.Failed().Detail, r.tlsRemedy())
		return
	}
	detail := fmt.Sprintf("%s, %s", r.Shown.Version, r.Shown.KeyExchange)
	if r.LosesLargePackets {
		r.warn("tls", r.subject, detail+": a handshake with a post-quantum key exchange, whose packets are large, is lost on the way",
			"correct the MTU between here and there, or clamp the MSS; see docs/operations.md, about networks that lose large packets")
	} else {
		r.pass("tls", r.subject, detail)
	}
	r.subjectOf()
}

func (r *probeReport) tlsRemedy() string {
	if r.Failure.Verdict != link.VerdictUnreachable {
		return r.Failure.Remedy
	}
	return fmt.Sprintf("ask the owner of %s which program listens at this address; TLS 1.3 is needed", r.id)
}

// subjectOf checks whose certificate the server has shown.
func (r *probeReport) subjectOf() {
	id, err := pki.IdentityOf(r.Shown.Chain[0].RawSubject)
	if want := r.peer.Identity; err != nil || id != want {
		r.failRest("subject", fmt.Sprintf("the server shows the certificate of %s, expected that of %v", r.Shown.Describe(), want),
			fmt.Sprintf("ask the owner of %s for its present address, in a new info-bundle: another node answers here", r.id))
		return
	}
	r.pass("subject", r.subject, id.String())
	r.chain()
}

// chain reports whether each side accepts the certificates of the other one.
func (r *probeReport) chain() {
	failed := r.Failed()
	refusedHere := failed != nil && failed.Name == link.StageTLS && !r.Refused
	if refusedHere {
		r.failRest("chain", "refused by this node: "+r.Failure.Reason+"; shown: "+r.Shown.Describe(), r.Failure.Remedy)
		return
	}
	r.pass("chain", r.subject, "accepted by this node: "+r.Shown.Describe())
	switch {
	case r.skip("accepted", r.subject, "certificate", "peering"):
		r.skipRest("accepted")
	case r.Refused:
		r.failRest("accepted", "refused by the peer: "+r.Failure.Reason, r.Failure.Remedy)
	default:
		r.pass("accepted", r.subject, "the peer accepts the certificates of this node")
		r.connect()
	}
}

// connect reports the STOMP session.
func (r *probeReport) connect() {
	failed := r.Failed()
	switch {
	case failed == nil:
		r.pass("connect", r.subject, fmt.Sprintf("STOMP 1.2, %.1f ms", 1000*r.seconds(link.StageConnect)))
		r.pass("registered", r.subject, "the peer knows this node")
		r.heartBeat()
	case r.Failure.Verdict == link.VerdictNotRegistered, r.Failure.Verdict == link.VerdictSuspended:
		r.pass("connect", r.subject, "the peer answers")
		r.failRest("registered", r.Failure.Reason, r.Failure.Remedy)
	default:
		r.failRest("connect", r.Failure.Reason, r.Failure.Remedy)
	}
}

func (r *probeReport) heartBeat() {
	h := r.HeartBeat
	if h.Receive <= 0 {
		r.warn("heart-beat", r.subject, "the peer sends none: a connection that is lost without a sign is noticed late", "ask the owner of "+r.id+" to turn on heart-beats")
		return
	}
	r.pass("heart-beat", r.subject, fmt.Sprintf("this node at least every %v, the peer at least every %v", h.Send, h.Receive))
}
