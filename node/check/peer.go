package check

import (
	"crypto/x509"
	"fmt"
	"strconv"
	"strings"
	"time"

	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// peer is the data of a peer that the steps after checkPeers need.
type peer struct {
	folder string
	id     pki.Identity // Type is 0 if unknown
	root   *x509.Certificate
	issued *x509.Certificate // by this node, to the peer
	subCA  *x509.Certificate // by the peer, to this node
	subnet string            // valid content of subnet.txt at an accounting authority, else empty

	subCAValid bool // subCA has no problem
}

// checkPeers checks each peer, except for its subnet.
func (c *checker) checkPeers() {
	for _, name := range c.list("peers") {
		if c.ctx.Err() != nil {
			return
		}
		folder := "peers/" + name
		if !c.isDir(folder) {
			continue // peers/ may contain other files, such as Kustomize files
		}
		if !isNodeID(name) {
			c.note(folder, RulePeerName, "is not named by a node ID, 8 or 32 lowercase hex digits: it is ignored")
			continue
		}
		c.checkPeer(folder, name)
	}
	c.checkNamesDiffer()
	if len(c.peers) > 1 && c.self.Type == nodetype.DebtorsAgent {
		c.problem("peers", RulePeerSingle, "has %d peers: a debtors agent has exactly one", len(c.peers))
	}
}

func (c *checker) checkPeer(folder, id string) {
	p := &peer{folder: folder, id: pki.Identity{ID: id}}
	c.peers = append(c.peers, p)
	state := c.checkState(p)

	typeFile := folder + "/nodetype.txt"
	if ou, ok := c.line(typeFile); !ok {
		if !c.exists(typeFile) { // if it exists, there is a finding that it can not be read
			c.problem(typeFile, RulePeerType, "is missing: expected the peer's type, for example %q", nodetype.AccountingAuthority.OU())
		}
	} else if t, err := nodetype.ParseOU(firstLine(ou)); err != nil {
		c.problem(typeFile, RulePeerType, "%v", err)
	} else {
		p.id.Type = t
		if c.self.Type != 0 && !c.self.Type.CanPeer(t) {
			c.problem(typeFile, RulePeerType, "a %v can not be the peer of a %v: one must be an accounting authority, the other an agent", t, c.self.Type)
		}
	}

	// The certificates of a deactivated peer are not used any more, so their
	// expiry is not reported.
	expiries := len(c.report.Expiries)
	rootFile, issuedFile, subCAFile := folder+"/root-ca.crt", folder+"/peercert.crt", folder+"/sub-ca.crt"
	rootsValid := false
	const pinned = "it was pinned when the peer's info-bundle was signed, and must come from a backup"
	if p.root = c.certificateOr(rootFile, pinned); p.root != nil {
		rootsValid = c.checkRoot(rootFile, p.root) && c.rootValid
		if got, err := pki.IdentityOf(p.root.RawSubject); err == nil && (got.ID != id || p.id.Type != 0 && got.Type != p.id.Type) {
			c.problem(rootFile, RulePeerIdentity, "is the certificate of %v: expected the node ID in the folder's name and the type in nodetype.txt", got)
		}
		if c.root != nil && sameKey(p.root, c.root) {
			c.problem(rootFile, RulePublicKey, "has the root key of this node: expected the peer's own")
		}
	} else if !c.exists(rootFile) {
		c.problem(rootFile, RuleCertMissing, "is missing: %s", pinned)
	}
	const issuedRemedy = "\"peerlink init\" restores it if certs/ has a copy; the peer has it too, as peers/<this node's ID>/sub-ca.crt"
	if c.restorable[issuedFile] { // checkDefects reports it
	} else if p.issued = c.certificateOr(issuedFile, issuedRemedy); p.issued != nil {
		c.issued = append(c.issued, issued{issuedFile, p.issued})
		if p.root != nil && c.root != nil {
			c.checkPeerCertificate(issuedFile, p.issued, c.root, p.root, rootsValid)
		}
	} else if !c.exists(issuedFile) {
		c.problem(issuedFile, RuleCertMissing, "is missing: %s", issuedRemedy)
	}
	p.subCA = c.certificateOr(subCAFile, `move the file away, and register the certificate again ("peerlink peer register"): the peer has it as peers/<this node's ID>/peercert.crt`)
	if p.subCA != nil && p.root != nil && c.root != nil {
		p.subCAValid = c.checkPeerCertificate(subCAFile, p.subCA, p.root, c.root, rootsValid)
	}
	if state.State == stateDeactivated {
		c.report.Expiries = c.report.Expiries[:expiries]
	}

	c.checkQueues(folder + "/queues.txt")
	state.Name = c.checkName(folder)
	severity := Problem
	if state.State == stateDeactivated {
		severity = Note
	}
	c.checkStompTOML(folder+"/nodeinfo", severity, "nothing can be sent to the peer; ask its owner for a new info-bundle")
	c.checkNames(folder+"/nodeinfo", "delete the folder, and sign its newest info-bundle again")
	c.checkPeerRevoked(folder)
	c.checkUpdatedAt(folder+"/nodeinfo", "newer info-bundles of the peer are not followed until then; if the clock is right, sign the newest one (\"peerlink peer sign\")")

	if p.id.Type != 0 {
		state.Type = p.id.Type.String()
	}
	c.report.Peers = append(c.report.Peers, state)
}

const stateDeactivated = "deactivated"

// checkState returns the state of the peering, as determined from the existence of
// files, regardless of their content.
func (c *checker) checkState(p *peer) PeerState {
	var facts node.Peer
	registered := c.exists(p.folder + "/sub-ca.crt")
	if registered {
		facts.SubCA = new(x509.Certificate)
	}
	facts.Active = c.exists(p.folder + "/ACTIVE")
	if c.exists(p.folder + "/DEACTIVATED") {
		facts.Deactivated = "some day"
		if date, ok := c.line(p.folder + "/DEACTIVATED"); ok && strings.ContainsAny(date, "\r\n") {
			c.problem(p.folder+"/DEACTIVATED", RulePeerState, "holds more than one line: expected the date of the deactivation, as %s", c.now.Format(time.DateOnly))
		}
	}
	if c.exists(p.folder + "/SUSPENDED") {
		facts.Suspended = new(node.Suspension)
	}
	state := PeerState{ID: p.id.ID, State: facts.State()}
	switch {
	case facts.Deactivated != "" && !registered:
		c.warning(p.folder+"/DEACTIVATED", RulePeerState, "marks a peer that was never registered: nobody can register it now")
	case facts.Active && !registered:
		c.warning(p.folder+"/ACTIVE", RulePeerState, "marks a peer that is not registered: there is no sub-ca.crt, so there can be no traffic; if it was lost, register the peer's certificate again")
	}
	switch state.State {
	case "signed":
		state.WaitingFor = fmt.Sprintf("the peer certificate from its owner, for \"peerlink peer register\" (and its owner needs %s/peercert.crt)", p.folder)
	case "registered":
		state.WaitingFor = "the service, \"peerlink serve\", which makes it active"
	case "suspended":
		c.note(p.folder+"/SUSPENDED", RulePeerState, "suspends the link: nothing is sent, and the peer's connections are refused, until \"peerlink peer resume %s\"", p.id.ID)
	}
	return state
}

func (c *checker) checkQueues(file string) {
	s, ok := c.line(file)
	if !ok {
		return // one queue: the directory was made by a version without queues.txt
	}
	if n, err := strconv.Atoi(strings.TrimSpace(s)); err != nil || n < 1 || n > 99 {
		c.problem(file, RulePeerQueues, "holds %q: expected the number of sending queues, from 1 to 99", firstLine(s))
	}
}

// checkName returns the name that the node's owner has given to a peer, or "" if there is none.
func (c *checker) checkName(folder string) string {
	name, err := node.ReadPeerName(c.path(folder))
	if err != nil {
		c.warning(folder+"/name.txt", RulePeerAlias, "is ignored, and the peer has no name: %v; \"peerlink peer name\" gives it one", reason(err))
	}
	return name
}

// checkNamesDiffer checks that no two peers have the same name.
func (c *checker) checkNamesDiffer() {
	first := make(map[string]string) // the ID of the first peer with a name, in lower case
	for _, p := range c.report.Peers {
		name := strings.ToLower(p.Name)
		if other, taken := first[name]; taken && name != "" {
			c.warning("peers/"+p.ID+"/name.txt", RulePeerAlias, "holds the same name as that of %s, so that it can not be used for either: \"peerlink peer name\" changes it", other)
			continue
		}
		first[name] = p.ID
	}
}

// checkChains checks that each peer would accept this node's certificates, with the
// same verification that the peer's server does when this node connects.
func (c *checker) checkChains(file string, server *x509.Certificate) {
	for _, p := range c.peers {
		if c.ctx.Err() != nil {
			return
		}
		if !p.subCAValid {
			continue
		}
		id, _, err := pki.VerifyClient([][]byte{server.Raw, p.subCA.Raw}, p.root, c.now)
		if err != nil {
			c.problem(p.folder+"/sub-ca.crt", RulePeerChain, "the peer will refuse this node when it shows %s: %v", file, err)
		} else if id != c.self {
			c.problem(p.folder+"/sub-ca.crt", RulePeerChain, "the peer will take this node for %v when it shows %s", id, file)
		}
	}
}
