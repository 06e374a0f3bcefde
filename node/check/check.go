// Package check is the fsck of a node's directory: it looks at everything in
// it, holds it against the specification, and changes nothing.
//
// [Run] reads the directory as files, not through [node.Open], which stops at
// the first thing that is wrong. Whatever can be looked at on its own is
// looked at, so that a directory with one broken file gets a report on all the
// others. What it finds becomes a [Report] of three parts:
//
//   - Findings: what is wrong, with the [Rule] that is broken. A rule's ID is
//     stable; the text is for people, and says what was expected and what to do.
//   - Peers: how far the peering with each of them has come, and who has to
//     move next.
//   - Expiries: when each certificate ends, the earliest first.
//
// # Severities
//
// A [Problem] is a MUST of the specification that is not met, or something
// that does not work, or that endangers a key. A [Warning] is a SHOULD that is
// not met, or something that will be a problem one day: a certificate about to
// end, a record that is missing. A [Note] is harmless, and mostly something
// that the reference tools would have done differently. The directory is well
// ([Report.OK]) if there is no Problem.
//
// # What is checked
//
//	who the node is    db/nodetype, db/nodeid, root-ca.crt, db/root-ca.csr
//	certificates       every point of the three tables in the specification
//	                   "Swaptacular SSL/TLS Certificates", one rule for each;
//	                   then, as the last word, the judgement of package pki,
//	                   which is what decides about real connections
//	records            db/index, db/serial and certs/ against each other and
//	                   against all certificates that the node has issued
//	subnets            reservations against the peers that have them, both ways
//	peers              types, states, queues, manifests, and the whole chain
//	                   that the peer will see
//	secrets            modes of the private folder and of the keys; keys that
//	                   are not encrypted, or lie where they do not belong
//
// What [node.Dir.Repair] could put right is reported with Repairable set.
//
// No lock is taken, since the directory may be read-only. A command that runs
// at the same moment can make a record look incomplete which is only being
// written: look again before believing it.
package check

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Options says what [Run] should look at beside the directory.
type Options struct {
	// Now is the time for which everything is judged. Zero means now.
	Now time.Time
	// KeyFile is where the root key lies if it is not in private/, where it may be
	// absent, as on servers. It is looked at, not opened: that takes a passphrase.
	KeyFile string
	// Servers are the server certificates in use. Without any, the newest
	// one in certs/ is taken for the one in use.
	Servers []ServerFiles
}

// ServerFiles names the files of a server certificate.
type ServerFiles struct {
	Cert string
	Key  string // may be empty: then only the certificate is checked
}

// Run checks the node's directory dir. Whatever is wrong with it is in the
// report; the error is about not being able to check at all: it wraps
// [node.ErrNotNode] where there is no node, or is the context's.
func Run(ctx context.Context, dir string, o Options) (*Report, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	keyNamed := o.KeyFile != ""
	if !keyNamed {
		o.KeyFile = node.DefaultKeyFile(dir)
	}
	c := &checker{ctx: ctx, dir: dir, options: o, keyNamed: keyNamed, now: o.Now, report: new(Report), modesSeen: make(map[string]bool), found: make(map[Finding]bool)}
	if err := c.recognize(); err != nil {
		return nil, err
	}
	for _, step := range []func(){
		c.checkIdentity,
		c.checkDefects,
		c.checkNodeinfo,
		c.checkPeers,
		c.checkSubnets,
		c.checkCopies,
		c.checkServers,
		c.checkRecords,
		c.checkSecrets,
	} {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		step()
	}
	if ctx.Err() != nil { // a step may have ended early
		return nil, ctx.Err()
	}
	c.report.finish()
	return c.report, nil
}

// checker is one run. Later steps use what earlier ones have found.
type checker struct {
	ctx      context.Context
	dir      string
	options  Options
	keyNamed bool // options.KeyFile was named, so it has to be there
	now      time.Time

	report   *Report
	found    map[Finding]bool // the same
	problems int              // in the report

	self      pki.Identity      // the zero Identity if it can not be told
	root      *x509.Certificate // nil if there is none that can be read
	rootValid bool              // it has no problem
	peers     []*peer
	issued    []issued        // certificates that this node has, or should have, signed
	copies    []issued        // server certificates in certs/
	modesSeen map[string]bool // by absolute path, keys whose modes have been checked
}

// issued is a certificate and where it was found.
type issued struct {
	file string
	cert *x509.Certificate
}

// recognize distinguishes a node\'s directory, however broken, from others.
func (c *checker) recognize() error {
	for _, file := range []string{"db/nodetype", "db/nodeid", "root-ca.crt"} {
		if _, err := os.Stat(c.path(file)); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s is %w: it has neither db/nodetype nor root-ca.crt; name the right one with --dir", c.dir, node.ErrNotNode)
}

// path is where a file of the directory is.
func (c *checker) path(file string) string { return filepath.Join(c.dir, filepath.FromSlash(file)) }

// add adds a finding, once: some files are read for several reasons.
func (c *checker) add(f Finding) {
	if c.found[f] {
		return
	}
	c.found[f] = true
	c.report.Findings = append(c.report.Findings, f)
	if f.Severity == Problem {
		c.problems++
	}
}

func (c *checker) problem(file string, rule Rule, format string, args ...any) {
	c.add(Finding{Severity: Problem, Rule: rule, Subject: file, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) warning(file string, rule Rule, format string, args ...any) {
	c.add(Finding{Severity: Warning, Rule: rule, Subject: file, Text: fmt.Sprintf(format, args...)})
}

func (c *checker) note(file string, rule Rule, format string, args ...any) {
	c.add(Finding{Severity: Note, Rule: rule, Subject: file, Text: fmt.Sprintf(format, args...)})
}

// checkDefects reports what [node.Dir.Repair] would put right.
func (c *checker) checkDefects() {
	d, err := node.Open(c.dir)
	if err != nil {
		return // whatever hinders it has its own finding
	}
	defects, err := d.Defects(c.ctx)
	if err != nil && c.ctx.Err() == nil {
		c.problem(".", RuleUnreadable, "not all of it could be looked at: %v", err)
	}
	for _, defect := range defects {
		f := Finding{Severity: Warning, Subject: defect.File, Repairable: true}
		switch defect.Kind {
		case node.DefectMissing:
			f.Rule = RuleIncomplete
			if needed[defect.File] {
				f.Severity = Problem
			}
		case node.DefectLeftover:
			f.Rule, f.Severity = RuleLeftover, Note
		case node.DefectUnusedSubnet:
			f.Rule = RuleSubnetUnused
		case node.DefectUnlisted:
			f.Rule = RuleIndexUnlisted
		}
		f.Text = fmt.Sprintf("%s: \"peerlink init\" repairs this", defect.Wrong)
		c.add(f)
	}
}

// needed are the generated files without which nothing can be signed. Others
// matter to the reference scripts only, or will be missed later.
var needed = map[string]bool{
	"db/serial":                   true,
	"db/subnets/creditors/SEQNUM": true,
	"db/subnets/debtors/SEQNUM":   true,
}

// isNodeID reports whether s has the form of some node's ID.
func isNodeID(s string) bool {
	for _, t := range nodetype.All {
		if (pki.Identity{Type: t, ID: s}).Validate() == nil {
			return true
		}
	}
	return false
}
