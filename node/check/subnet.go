package check

import (
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// checkSubnets checks the subnets that the node has given, if it is an accounting
// authority, or received, if it is an agent.
func (c *checker) checkSubnets() {
	switch c.self.Type {
	case nodetype.AccountingAuthority:
		c.checkGivenSubnets()
	case nodetype.CreditorsAgent:
		own, ok := c.line("creditors-subnet.txt")
		if !ok {
			c.problem("creditors-subnet.txt", RuleSubnetOwn, "is missing: expected the 6 hex digits with which this node's own creditor IDs begin, 000001 unless it was changed")
		} else if !isHex(own, 6) {
			c.problem("creditors-subnet.txt", RuleSubnetOwn, "holds %q: expected 6 lowercase hex digits", firstLine(own))
		}
		for _, p := range c.peers {
			c.checkSubnetFile(p.folder+"/masq-subnet.txt", p.folder+"/sub-ca.crt", p.subCA)
		}
	case nodetype.DebtorsAgent:
		for _, p := range c.peers {
			c.checkSubnetFile("debtors-subnet.txt", p.folder+"/sub-ca.crt", p.subCA)
		}
	}
}

// checkSubnetFile checks that a file holds the subnet in the comment of cert. It does
// nothing if cert is nil.
func (c *checker) checkSubnetFile(file, certFile string, cert *x509.Certificate) {
	if cert == nil {
		return
	}
	want, ok, err := pki.SubnetComment(cert)
	if err != nil || !ok {
		return // checkComment reports it
	}
	got, ok := c.line(file)
	switch {
	case !ok:
		c.add(Finding{Severity: Problem, Rule: RuleSubnetFile, Subject: file, Repairable: true,
			Text: fmt.Sprintf("is missing: expected %s, the subnet in %s; \"peerlink init\" repairs this", want, certFile)})
	case got != want:
		c.add(Finding{Severity: Problem, Rule: RuleSubnetFile, Subject: file, Repairable: true,
			Text: fmt.Sprintf("holds %q: expected %s, the subnet in %s; \"peerlink init\" repairs this", firstLine(got), want, certFile)})
	}
}

// checkGivenSubnets checks that an accounting authority's reservations agree with its
// peers.
func (c *checker) checkGivenSubnets() {
	for _, p := range c.peers {
		file := p.folder + "/subnet.txt"
		c.checkSubnetFile(file, p.folder+"/peercert.crt", p.issued)
		subnet, ok := c.line(file)
		if !ok || p.id.Type == 0 {
			continue
		}
		if err := pki.CheckSubnet(c.self, p.id, subnet); err != nil {
			c.problem(file, RuleSubnetFile, "%v", err)
			continue
		}
		p.subnet = subnet
	}
	for _, p := range c.peers {
		if p.subnet != "" {
			c.checkReserved(p)
		}
	}
	c.checkHolders()
	for _, kind := range []nodetype.Type{nodetype.CreditorsAgent, nodetype.DebtorsAgent} {
		c.checkReservations(kind)
	}
}

// reservationsFolder returns the folder with the reservations for peers of a type.
func reservationsFolder(kind nodetype.Type) string {
	if kind == nodetype.CreditorsAgent {
		return "db/subnets/creditors"
	}
	return "db/subnets/debtors"
}

// checkReserved checks that the peer's subnet is reserved for the peer, so that it cannot be
// given to another peer.
func (c *checker) checkReserved(p *peer) {
	file := reservationsFolder(p.id.Type) + "/" + p.subnet
	owner, ok := c.line(file)
	if _, err := os.Lstat(c.path(file)); !ok && errors.Is(err, fs.ErrNotExist) {
		return // checkDefects reports it
	}
	if owner != p.id.ID && !c.hasReplaced(p, owner) {
		c.problem(file, RuleSubnetUnreserved, "holds %q: expected %s, the peer that has this subnet; write that into the file", firstLine(owner), p.id.ID)
	}
}

// hasReplaced reports whether one of a peer and another node has taken over the subnet of the other,
// which is deactivated ("peerlink peer replace").
func (c *checker) hasReplaced(p *peer, other string) bool {
	isDeactivated := func(id string) bool { return c.exists("peers/" + id + "/DEACTIVATED") }
	return slices.ContainsFunc(c.peers, func(o *peer) bool {
		return o.id.ID == other && o.subnet == p.subnet && isDeactivated(o.id.ID) != isDeactivated(p.id.ID)
	})
}

// checkHolders checks that the subnets of different nodes do not overlap, according to the files
// of peers, the certificates in certs/ under any name, and the record of what was signed on this
// machine, but not according to reservations and requests.
func (c *checker) checkHolders() {
	d, err := node.Open(c.dir)
	if err != nil {
		return // the reason has a finding of its own
	}
	c.holders, _ = d.SubnetHolders(c.ctx) // checkDefects reports the error
	// The holders are sorted by subnet: a subnet that is a part of another subnet comes after it.
	var outer node.SubnetHolder // the last holder whose subnet is not a part of an earlier subnet
	for _, h := range c.holders {
		switch {
		// Subnets of creditor IDs and subnets of debtor IDs do not overlap.
		case outer.Subnet == "" || h.Subnet != outer.Subnet && (len(outer.Subnet) == creditorsDigits || !strings.HasPrefix(h.Subnet, outer.Subnet)):
			outer = h
		case h.Peer != outer.Peer:
			c.addOverlap(outer, h)
		}
	}
}

// creditorsDigits is the number of hex digits of a subnet of creditor IDs.
const creditorsDigits = 6

// addOverlap adds the finding that the subnets of two nodes are the same, or that the subnet of b
// is a part of that of a.
func (c *checker) addOverlap(a, b node.SubnetHolder) {
	for _, file := range slices.Concat(a.Files, b.Files) {
		c.disputed[file] = true
	}
	text := fmt.Sprintf("the subnet %s overlaps with %s: both nodes could use the same IDs; ", describeHolder(b), describeHolder(a))
	for _, h := range []node.SubnetHolder{a, b} {
		if c.exists("peers/" + h.Peer + "/DEACTIVATED") {
			c.note(b.Files[0], RuleSubnetOverlap, "%sbut %s is deactivated", text, firstLine(h.Peer))
			return
		}
	}
	c.problem(b.Files[0], RuleSubnetOverlap, "%sif one of them has not registered its certificate yet, remove its folder in peers/, its files that are named here (of %s only its line) and the reservation in db/subnets if that names it, and sign its info-bundle again: it gets another subnet; "+
		"if both have, end the link with one (\"peerlink peer deactivate\"): a node keeps its subnet for ever, and its owner has to make a new node", text, recordFile)
}

// recordFile is the record of what was signed on this machine for requests of another machine.
const recordFile = node.RequestsFolder + "/" + signrecord.Name

// describeHolder returns a subnet, the node that has it, and the files that show it.
func describeHolder(h node.SubnetHolder) string {
	return fmt.Sprintf("%s of %s (%s)", h.Subnet, firstLine(h.Peer), strings.Join(h.Files, ", "))
}

// checkReservations checks the files of one pool. Defects that can be repaired are
// reported by checkDefects.
func (c *checker) checkReservations(kind nodetype.Type) {
	folder := reservationsFolder(kind)
	start, most := 0, 0xffffff
	if kind == nodetype.DebtorsAgent {
		start, most = -1, 0xff
	}
	holders := make(map[string]node.SubnetHolder) // by subnet
	for _, h := range c.holders {
		holders[h.Subnet] = h
	}
	for _, name := range c.list(folder) {
		if c.ctx.Err() != nil {
			return
		}
		file := folder + "/" + name
		owner, ok := c.line(file)
		if !ok {
			continue
		}
		if name == "SEQNUM" {
			if n, err := strconv.Atoi(strings.TrimSpace(owner)); owner != "" && (err != nil || n < start || n > most) {
				c.problem(file, RuleSubnetCounter, "holds %q: expected the last number given out, from %d to %d", firstLine(owner), start, most)
			}
			continue
		}
		if err := pki.CheckSubnet(c.self, pki.Identity{Type: kind}, name); err != nil {
			c.warning(file, RuleSubnetReservation, "is no reservation: %v", err)
			continue
		}
		has := slices.ContainsFunc(c.peers, func(p *peer) bool { return p.subnet == name && p.id.Type == kind })
		switch {
		case has: // checkReserved checks that the owner is right
		case holders[name].Peer == owner: // a certificate in certs/, or the record
		case holders[name].Peer != "":
			c.problem(file, RuleSubnetUnreserved, "reserves the subnet for %q, but it is given already: %s; remove the file if %s has no certificate with this subnet", firstLine(owner), describeHolder(holders[name]), firstLine(owner))
		case kind == nodetype.CreditorsAgent:
			c.note(file, RuleSubnetUnused, "is reserved for %q, but no peer has this subnet: one of 16,777,215, and harmless", firstLine(owner))
		case len(name) != len(c.self.ID)+2:
			c.note(file, RuleSubnetUnused, "is reserved for %q, but no peer has this subnet: remove the file if that is certain", firstLine(owner))
		}
	}
}

func isHex(s string, digits int) bool {
	return len(s) == digits && strings.Trim(s, "0123456789abcdef") == ""
}
