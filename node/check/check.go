// Package check is the fsck of a node's directory: it compares the whole directory
// with the specification, and changes nothing.
//
// [Run] reads the files of the directory itself, and not through [node.Open], which
// fails at the first error. Each part is checked independently where possible, so that
// a directory with one damaged file gets a report on all others. The [Report] has three
// parts:
//
//   - Findings: the errors, each with the [Rule] that is broken. The ID of a rule is
//     stable. The text is for operators; it has the error, the expected content, and
//     the remedy.
//   - Peers: the state of each peering, and the next step.
//   - Expiries: the end of each certificate in use, the earliest first.
//
// # Severities
//
// A [Problem] is a MUST of the specification that is not met, something that does not
// work, or something that endangers a key. A [Warning] is a SHOULD that is not met, or
// something that will become a problem later, such as a certificate that expires soon
// or a missing record. A [Note] is harmless; most notes are about differences from what
// the reference tools do. [Report.OK] returns true if there is no Problem.
//
// # What is checked
//
//	who the node is    db/nodetype, db/nodeid, root-ca.crt, db/root-ca.csr
//	certificates       every point of the three tables in the specification
//	                   "Swaptacular SSL/TLS Certificates", one rule for each;
//	                   then the verification by package pki, which decides
//	                   about real connections
//	records            db/index, db/serial and certs/ against each other and
//	                   against all certificates that the node has issued
//	subnets            reservations against the peers that have them, both ways
//	peers              types, states, queues, stomp.toml, and the whole chain
//	                   that the peer will verify
//	secrets            modes of the private folder and of the keys; keys that
//	                   are not encrypted, or in the wrong place
//
// Findings that [node.Dir.Repair] can repair have Repairable set.
//
// The package takes no lock, because the directory may be read-only. A record that
// another command is writing at the same moment may appear incomplete: repeat the check
// before acting on such a finding.
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

// Options are the parameters of [Run].
type Options struct {
	// Now is the time for which certificates and dates are checked. Zero means the
	// current time.
	Now time.Time
	// KeyFile is the path of the root key's file, which then must exist. Empty means
	// the file in private/, which may be missing, as on servers. The file is not
	// decrypted, because that needs a passphrase.
	KeyFile string
	// Servers are the server certificates in use. If there are none, the server
	// certificate in certs/ that ends last is assumed to be in use.
	Servers []ServerFiles
}

// ServerFiles names the files of a server certificate.
type ServerFiles struct {
	Cert string
	Key  string // if empty, only the certificate is checked
}

// Run checks the node's directory dir, and returns a report of everything that is
// wrong with it. Run fails only if the directory can not be checked at all: with
// [node.ErrNotNode] if it is not a node's directory, or with the error of ctx.
func Run(ctx context.Context, dir string, o Options) (*Report, error) {
	if o.Now.IsZero() {
		o.Now = time.Now()
	}
	keyNamed := o.KeyFile != ""
	if !keyNamed {
		o.KeyFile = node.DefaultKeyFile(dir)
	}
	c := &checker{ctx: ctx, dir: dir, options: o, keyNamed: keyNamed, now: o.Now, report: new(Report), modesSeen: make(map[string]bool), disputed: make(map[string]bool), restorable: make(map[string]bool), found: make(map[Finding]bool)}
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
	if ctx.Err() != nil { // a step may have returned early
		return nil, ctx.Err()
	}
	c.report.finish()
	return c.report, nil
}

// checker is the state of one [Run]. Later steps use the results of earlier ones.
type checker struct {
	ctx      context.Context
	dir      string
	options  Options
	keyNamed bool // options.KeyFile was given, so the file must exist
	now      time.Time

	report   *Report
	found    map[Finding]bool // the findings in the report
	problems int              // number of problems in the report

	self        pki.Identity      // the zero Identity if unknown
	root        *x509.Certificate // nil if missing or unreadable
	rootValid   bool              // root has no problem
	peers       []*peer
	issued      []issued // certificates that this node has signed, or should have signed
	serverCerts []issued // server certificates in certs/
	holders     []node.SubnetHolder
	restorable  map[string]bool // peer certificates that have a finding, because they can be restored
	disputed    map[string]bool // the files that give a subnet which another node has too
	modesSeen   map[string]bool // absolute paths of the keys whose modes have been checked
}

// issued is a certificate and the file in which it was found.
type issued struct {
	file string
	cert *x509.Certificate
}

// recognize fails with [node.ErrNotNode] if the directory is not a node's, not even a
// damaged one.
func (c *checker) recognize() error {
	if fi, err := os.Stat(c.dir); err == nil && !fi.IsDir() {
		return fmt.Errorf("%s is %w: it is not a directory; name the right one with --dir", c.dir, node.ErrNotNode)
	}
	for _, file := range []string{"db/nodetype", "db/nodeid", "root-ca.crt"} {
		if _, err := os.Stat(c.path(file)); !errors.Is(err, fs.ErrNotExist) {
			return nil
		}
	}
	return fmt.Errorf("%s is %w: it has neither db/nodetype nor root-ca.crt; name the right one with --dir", c.dir, node.ErrNotNode)
}

// path returns the path of a file of the directory.
func (c *checker) path(file string) string { return filepath.Join(c.dir, filepath.FromSlash(file)) }

// add adds a finding, unless the report has it already: some files are read several
// times.
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

// checkDefects reports the defects that [node.Dir.Repair] would repair.
func (c *checker) checkDefects() {
	d, err := node.Open(c.dir)
	if err != nil {
		return // the reason has a finding of its own
	}
	defects, err := d.Defects(c.ctx)
	if err != nil && c.ctx.Err() == nil {
		c.problem(".", RuleUnreadable, "not all files could be checked: %v", err)
	}
	for _, defect := range defects {
		f := Finding{Severity: Warning, Subject: defect.File, Repairable: true}
		switch defect.Kind {
		case node.DefectMissing:
			f.Rule = RuleIncomplete
			if neededForSigning[defect.File] {
				f.Severity = Problem
			}
		case node.DefectLeftover:
			f.Rule, f.Severity = RuleLeftover, Note
		case node.DefectUnusedSubnet:
			f.Rule = RuleSubnetUnused
		case node.DefectUnreservedSubnet:
			f.Rule = RuleSubnetUnreserved
		case node.DefectSubnetFile:
			continue // checkSubnetFile reports it
		case node.DefectUnlisted:
			f.Rule = RuleIndexUnlisted
		case node.DefectPeerCertificate:
			f.Rule, f.Severity = RuleCertPEM, Problem
			if !c.exists(defect.File) {
				f.Rule = RuleCertMissing
			}
			c.restorable[defect.File] = true
		}
		f.Text = fmt.Sprintf("%s: \"peerlink init\" repairs this", defect.Wrong)
		c.add(f)
	}
}

// neededForSigning are the generated files without which the reference scripts cannot number
// certificates and subnets. If one is missing, that is a [Problem], although peerlink can sign.
var neededForSigning = map[string]bool{
	"db/serial":                   true,
	"db/subnets/creditors/SEQNUM": true,
	"db/subnets/debtors/SEQNUM":   true,
}

// isNodeID reports whether s has the form of a node ID of any type.
func isNodeID(s string) bool {
	for _, t := range nodetype.All {
		if (pki.Identity{Type: t, ID: s}).Validate() == nil {
			return true
		}
	}
	return false
}
