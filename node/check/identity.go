package check

import (
	"bytes"
	"fmt"
	"strings"

	"peerlink/internal/textfile"
	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// checkIdentity determines the node's identity from db/nodetype, db/nodeid and root-ca.crt, and
// checks that all three agree. If they differ, the certificate takes precedence, because peers
// use the certificate.
func (c *checker) checkIdentity() {
	fromFiles, hasID := c.readIdentity()
	c.self = fromFiles
	if c.root = c.certificate("root-ca.crt"); c.root != nil {
		c.issued = append(c.issued, issued{"root-ca.crt", c.root})
		c.rootValid = c.checkRoot("root-ca.crt", c.root)
		if id, err := pki.IdentityOf(c.root.RawSubject); err == nil {
			c.self = id
			c.compareIdentity(fromFiles, hasID)
			c.checkCSR()
			c.checkConf()
		}
	} else {
		c.checkLostRoot()
		if err := fromFiles.Validate(); err != nil && fromFiles.Type != 0 && hasID {
			c.problem("db/nodeid", RuleNodeID, "%v", err)
		}
	}
	if c.self.Validate() != nil {
		c.self = pki.Identity{}
		return
	}
	c.report.ID, c.report.Type = c.self.ID, c.self.Type.String()
}

// checkLostRoot reports a missing root-ca.crt, or a damaged one that can be restored, with
// the remedy.
func (c *checker) checkLostRoot() {
	if c.exists("root-ca.crt") { // which has a finding already
		if restorable, err := node.RootRestorable(c.dir); restorable {
			c.add(Finding{Severity: Problem, Rule: RuleCertPEM, Subject: "root-ca.crt", Text: fmt.Sprintf("is damaged: %v", err), Repairable: true})
		}
		return
	}
	f := Finding{Severity: Problem, Rule: RuleCertMissing, Subject: "root-ca.crt", Text: "is missing: take it from a backup, from an info-bundle of this node, or from a peer, which has it as peers/<node ID>/root-ca.crt"}
	if restorable, err := node.RootRestorable(c.dir); err != nil {
		f.Text, f.Repairable = fmt.Sprintf("is missing: %v", err), restorable
	}
	c.add(f)
}

// readIdentity reads db/nodetype and db/nodeid. The type is 0 if it is invalid. The ID
// is not checked.
func (c *checker) readIdentity() (said pki.Identity, hasID bool) {
	if ou, ok := c.identityLine("db/nodetype", RuleNodeType); !ok {
		if !c.exists("db/nodetype") { // if it exists, there is a finding that it can not be read
			c.reportLost("db/nodetype", RuleNodeType, fmt.Sprintf("is missing: expected the node's type, for example %q", nodetype.CreditorsAgent.OU()))
		}
	} else if t, err := nodetype.ParseOU(firstLine(ou)); err != nil {
		c.reportLost("db/nodetype", RuleNodeType, err.Error())
	} else {
		said.Type = t
	}
	if said.ID, hasID = c.identityLine("db/nodeid", RuleNodeID); !hasID && !c.exists("db/nodeid") {
		c.reportLost("db/nodeid", RuleNodeID, "is missing: expected the node ID")
	}
	return said, hasID
}

// identityLine is like [checker.line] for db/nodetype and db/nodeid. A file that is not text
// is damaged.
func (c *checker) identityLine(file string, rule Rule) (s string, ok bool) {
	data, ok := c.read(file)
	if !ok {
		return "", false
	}
	text, err := textfile.Decode(data)
	if err != nil {
		c.reportLost(file, rule, err.Error())
		return "", false
	}
	c.checkMark(file, data)
	return c.trimLineEnd(file, text), true
}

// reportLost reports that db/nodetype or db/nodeid is missing or damaged. [node.Restore] restores
// the file if root-ca.crt and db/index exist.
func (c *checker) reportLost(file string, rule Rule, text string) {
	f := Finding{Severity: Problem, Rule: rule, Subject: file, Text: text}
	if c.exists("root-ca.crt") && c.exists("db/index") {
		f.Text, f.Repairable = f.Text+`; "peerlink init", without a type, repairs this`, true
	}
	c.add(f)
}

// identityRemedy is the remedy for a well-formed type or ID of another node.
const identityRemedy = "if root-ca.crt is this node's, write that into the file, otherwise restore root-ca.crt from a backup"

func (c *checker) compareIdentity(said pki.Identity, hasID bool) {
	if said.Type != 0 && said.Type != c.self.Type {
		c.problem("db/nodetype", RuleNodeType, "holds %q, but root-ca.crt is that of %v: expected %q; %s", said.Type.OU(), c.self, c.self.Type.OU(), identityRemedy)
	}
	if !hasID || said.ID == c.self.ID {
		return
	}
	text := fmt.Sprintf("holds %q, but root-ca.crt is that of %v: expected %q", firstLine(said.ID), c.self, c.self.ID)
	if isHex(said.ID, 8) || isHex(said.ID, 32) {
		c.problem("db/nodeid", RuleNodeID, "%s; %s", text, identityRemedy)
	} else {
		c.reportLost("db/nodeid", RuleNodeID, text)
	}
}

// checkCSR checks db/root-ca.csr, the request in info-bundles. The file may be missing,
// because the first info-bundle creates it.
func (c *checker) checkCSR() {
	const file = "db/root-ca.csr"
	data, ok := c.text(file, RuleCSR)
	if !ok {
		return
	}
	csr, err := pki.ParseCSRPEM(data)
	switch {
	case err != nil:
		c.problem(file, RuleCSR, "%v: info-bundles with this request are refused; remove the file, and the next info-bundle gets a new one", err)
	case !bytes.Equal(csr.RawSubjectPublicKeyInfo, c.root.RawSubjectPublicKeyInfo) || !bytes.Equal(csr.RawSubject, c.root.RawSubject):
		c.problem(file, RuleCSR, "does not have the key and the name of root-ca.crt: info-bundles with this request are refused; remove the file, and the next info-bundle gets a new one")
	}
}

// checkConf checks that root-ca.conf, which the reference scripts use, is not the
// configuration of another node.
func (c *checker) checkConf() {
	const file = "root-ca.conf"
	conf, ok := c.read(file)
	if ok && len(conf) > 0 && (!strings.Contains(string(conf), c.self.ID) || !strings.Contains(string(conf), c.self.Type.OU())) {
		c.warning(file, RuleConf, "does not name %v: the reference scripts would sign in another name; remove it, and \"peerlink init\" makes it anew", c.self)
	}
}
