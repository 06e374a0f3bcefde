package doctor

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"peerlink/link"
	"peerlink/node"
	"peerlink/node/pki"
)

// maxProbes bounds the connections to peers that are made at once.
const maxProbes = 32

// networkChecks are the checks of connections to the servers of a peer, in their order.
var networkChecks = []string{"dns", "tcp", "tls", "subject", "chain", "accepted", "connect", "registered", "heart-beat"}

// checkPeers examines all peers, side by side.
func (e *examination) checkPeers(ctx context.Context) {
	if e.dir == nil {
		return
	}
	probes := make(chan struct{}, maxProbes)
	prober := link.NewProber(link.Config{
		Dir: e.dir, Certificate: e.cert, Now: e.cfg.Now, Proxy: e.cfg.Proxy,
		ConnectTimeout: e.cfg.ConnectTimeout, HandshakeTimeout: e.cfg.HandshakeTimeout,
	})
	var group errgroup.Group
	group.SetLimit(2 * maxProbes)
	var done atomic.Int64
	ids := e.peerIDs()
	for _, id := range ids {
		group.Go(func() error {
			x := &peerExamination{examination: e, section: e.peers[id], id: id, prober: prober, probes: probes}
			x.run(ctx)
			if e.cfg.Progress != nil {
				e.cfg.Progress(int(done.Add(1)), len(ids))
			}
			return nil
		})
	}
	_ = group.Wait()
}

// peerExamination examines one peer.
type peerExamination struct {
	*examination
	*section
	id     string
	peer   *node.Peer
	prober *link.Prober
	probes chan struct{} // has an element for each probe in progress
}

func (x *peerExamination) run(ctx context.Context) {
	if x.checkFiles() {
		x.checkOwnChain()
		x.checkServers(ctx)
		x.checkDestination()
		x.checkReceiving()
		x.checkHeld()
	}
	if x.peer != nil && x.cfg.Broker != nil && !x.skip("objects", "", "broker") {
		x.cfg.Broker.examinePeer(ctx, x.examination, x.section, x.peer)
	}
}

// checkFiles reads the peer's files, and reports whether there should be traffic with the peer.
func (x *peerExamination) checkFiles() bool {
	const name = "peering"
	p, err := x.dir.Peer(x.id)
	if err == nil && p.Deactivated == "" {
		err = p.RevokedErr
	}
	if err != nil {
		if !x.skip(name, "", "files") {
			x.fail(name, "", err.Error(), "peerlink check")
		}
		return false
	}
	x.peer = p
	switch {
	case p.Deactivated != "":
		x.pass(name, "", "deactivated on "+p.Deactivated+": no messages are exchanged any more")
		return false
	case p.SubCA == nil:
		x.fail(name, "", "only signed: this node has no peer certificate from the peer",
			fmt.Sprintf("send %s to the owner of %s, who signs this node's info-bundle and sends a certificate back; then run: peerlink peer register CERT", x.dir.IssuedFile(x.id), x.id))
	case p.Suspended != nil:
		x.fail(name, "", "the link is suspended here, since "+p.Suspended.Since, "peerlink peer resume "+x.id)
	case p.StompErr != nil:
		if !x.skip(name, "", "files") {
			x.fail(name, "", p.StompErr.Error(), peerRemedies["nodeinfo"])
		}
		return false
	default:
		x.pass(name, "", p.State())
	}
	return p.StompErr == nil
}

// checkOwnChain verifies the chain that this node shows to the peer's servers as the peer does.
func (x *peerExamination) checkOwnChain() {
	const name = "own-chain"
	if x.skip(name, "", "certificate") || x.peer.SubCA == nil {
		return
	}
	id, _, err := pki.VerifyClient([][]byte{x.cert.Leaf().Raw, x.peer.SubCA.Raw}, x.peer.Root, x.now)
	switch {
	case err != nil:
		x.fail(name, "", "the peer will refuse it: "+err.Error(), peerRemedies["peer.chain"])
	case id != x.dir.Identity():
		x.fail(name, "", fmt.Sprintf("the peer will take this node for %v", id), peerRemedies["peer.chain"])
	default:
		x.pass(name, "", "the peer's root key has issued it")
	}
}

// checkServers probes the peer's servers, side by side, at most [link.MaxProbed].
func (x *peerExamination) checkServers(ctx context.Context) {
	servers, leftOut := link.ServersToProbe(x.peer)
	if leftOut > 0 {
		x.warn("servers", "", fmt.Sprintf("%d of %d servers are left out: only the first %d in the peer's stomp.toml are tried", leftOut, leftOut+len(servers), len(servers)),
			fmt.Sprintf("ask the owner of %s whether all of them are needed", x.id))
	}
	results := make([][]Check, len(servers))
	var wait sync.WaitGroup
	for i, server := range servers {
		wait.Go(func() {
			s := &serverExamination{peerExamination: x, section: newSection(x.section, x.id), server: server}
			s.run(ctx)
			results[i] = s.section.checks
		})
	}
	wait.Wait()
	for _, checks := range results {
		for _, c := range checks {
			x.add(c.Name, c.Subject, c.State, c.Detail, c.Remedy)
		}
	}
}

// checkDestination compares the destination of messages with the one that nodes of the peer's type
// accept. What the peer's servers accept shows only when a message is sent.
func (x *peerExamination) checkDestination() {
	want, got := x.peer.Identity.Type.Destination(), x.peer.Stomp.Destination
	if got == want {
		x.pass("destination", "", got)
		return
	}
	x.warn("destination", "", fmt.Sprintf("the peer's stomp.toml has the destination %q, and servers of its type usually accept %q only", got, want),
		"if the peer refuses messages, ask its owner for an info-bundle with the right destination")
}

// checkHeld reports messages that the running service can neither send nor set aside.
func (x *peerExamination) checkHeld() {
	if x.cfg.Service == nil {
		return
	}
	for i := range x.cfg.Service.Peers {
		p := &x.cfg.Service.Peers[i]
		if p.ID != x.id {
			continue
		}
		for _, h := range p.Held {
			x.fail("sending", "", h.String(), h.Remedy())
		}
	}
}

// checkReceiving reports what the running service says about the connections from the peer.
func (x *peerExamination) checkReceiving() {
	const name = "receiving"
	if x.cfg.Service == nil || x.anyFailed() {
		return // the other direction shows the cause
	}
	for i := range x.cfg.Service.Peers {
		p := &x.cfg.Service.Peers[i]
		if p.ID != x.id {
			continue
		}
		sentence := p.In.Sentence(x.cfg.Service.At, p.LastContact)
		if p.In.Verdict.Severity() == link.Bad {
			x.fail(name, "", sentence, p.In.Remedy)
		} else {
			x.pass(name, "", sentence)
		}
	}
}
