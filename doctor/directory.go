package doctor

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"peerlink/node"
	"peerlink/node/check"
)

// maxFindings bounds the findings about the directory, or about one peer's files, that are reported.
const maxFindings = 20

// checkDirectory opens the node's directory, and reports what [check.Run] finds: about access to
// files as "permissions", about a peer as "files" of that peer, the rest as "directory".
func (e *examination) checkDirectory(ctx context.Context) {
	report, err := check.Run(ctx, e.cfg.Dir, check.Options{Now: e.now, Servers: []check.ServerFiles{{Cert: e.cfg.ServerCert, Key: e.cfg.ServerKey}}})
	if err == nil {
		e.dir, err = node.Open(e.cfg.Dir)
	}
	if err != nil {
		e.fail("directory", e.cfg.Dir, err.Error(), e.openRemedy(err))
		return
	}
	groups := e.group(report)
	e.report("directory", groups["directory"], e.dir.Identity().String())
	e.report("permissions", groups["permissions"], "nobody else can read keys or change files")
	ids, err := e.dir.PeerIDs()
	if err != nil {
		e.fail("directory", e.cfg.Dir, err.Error(), "see that this user can read the directory")
		return
	}
	for _, id := range ids {
		if e.cfg.Peer == "" || id == e.cfg.Peer {
			s := newSection(e.section, id)
			e.peers[id] = s
			s.report("files", groups[id], "complete")
		}
	}
}

func (e *examination) openRemedy(err error) string {
	switch {
	case strings.Contains(err.Error(), `"peerlink init"`):
		return "peerlink -C " + e.cfg.Dir + " init"
	case errors.Is(err, node.ErrNotNode):
		return "name the node's directory with --dir"
	}
	return "put back what is damaged from a backup"
}

// group sorts the findings of a report by the check that they belong to. Findings about the server
// certificate in use are left out, because checkCertificate looks at it. So is what only a wrong clock
// makes wrong.
func (e *examination) group(report *check.Report) map[string][]check.Finding {
	groups := make(map[string][]check.Finding)
	for _, f := range report.Findings {
		byCertificate := e.isServerFile(f.Subject) && (f.Severity == check.Problem || f.Rule == check.RuleExpiry)
		if f.Severity == check.Note || byCertificate || e.isBroken("clock") && f.Rule == check.RuleDates {
			continue
		}
		key := "directory"
		rule, _, _ := strings.Cut(string(f.Rule), ".")
		if rest, ok := strings.CutPrefix(f.Subject, "peers/"); ok {
			key, _, _ = strings.Cut(rest, "/")
		} else if rule == "mode" || rule == "key" {
			key = "permissions"
		}
		groups[key] = append(groups[key], f)
	}
	return groups
}

func (e *examination) isServerFile(subject string) bool {
	return subject == e.cfg.ServerCert || subject == e.cfg.ServerKey
}

// report adds a check for each finding, the worst first, or one that has passed.
func (s *section) report(name string, findings []check.Finding, good string) {
	findings = slices.Clone(findings)
	slices.SortStableFunc(findings, func(a, b check.Finding) int { return -cmp.Compare(a.Severity, b.Severity) })
	for i, f := range findings {
		if i == maxFindings {
			s.warn(name, "", fmt.Sprintf("and %d more", len(findings)-maxFindings), "peerlink check")
			return
		}
		state := Warning
		if f.Severity == check.Problem {
			state = Failed
		}
		s.add(name, f.Subject, state, f.Text, findingRemedy(f))
	}
	if len(findings) == 0 {
		s.pass(name, "", good)
	}
}

// findingRemedies are the remedies for findings, by their rule or the beginning of it up to the dot.
var findingRemedies = map[string]string{
	"mode.private":       "chmod 700 on the folder",
	"mode.key":           "chmod 600 on the file",
	"mode.writable":      "chmod -R o-w on the node's directory",
	"key.encrypted":      "encrypt the key: openssl pkcs8 -topk8 -scrypt",
	"key.root":           "put the root key back from a backup: peerlink key join",
	"key":                "move the key to private/, or out of the directory",
	"nodeinfo.stomp":     "write the addresses of this node's servers into nodeinfo/stomp.toml, and make a new info-bundle: peerlink bundle create",
	"nodeinfo.published": "peerlink bundle create",
	"cert.expiry":        "nothing renews it: the node has to be made anew before it ends",
	"file.unreadable":    "see that this user can read the file, and that it is a regular one",
	"file.conflict":      "resolve the conflict in git",
}

// peerRemedies are those for findings about the files of a peer.
var peerRemedies = map[string]string{
	"nodeinfo.stomp": "ask the owner of the peer for a new info-bundle, and run: peerlink peer sign BUNDLE.zip",
	"nodeinfo":       "ask the owner of the peer for a new info-bundle, and run: peerlink peer sign BUNDLE.zip",
	"peer.chain":     "ask the owner of the peer to sign this node again, and run: peerlink peer register CERT",
	"peer.queues":    "peerlink peer queues PEER N",
	"peer.alias":     "peerlink peer name PEER NAME",
	"cert.expiry":    "nothing renews it: the two nodes have to become peers anew before it ends",
}

func findingRemedy(f check.Finding) string {
	if f.Repairable {
		return "peerlink init"
	}
	rule := string(f.Rule)
	group, _, _ := strings.Cut(rule, ".")
	tables := []map[string]string{findingRemedies}
	switch {
	case strings.HasPrefix(f.Subject, "peers/"):
		tables = []map[string]string{peerRemedies, findingRemedies}
	case f.Rule == check.RuleExpiry && f.Subject != "root-ca.crt":
		return "peerlink server-cert renew"
	}
	for _, table := range tables {
		if remedy := cmp.Or(table[rule], table[group]); remedy != "" {
			return remedy
		}
	}
	return "put the file back from a backup; peerlink check says more"
}

// peerIDs returns the IDs of the peers that are examined, in order.
func (e *examination) peerIDs() []string {
	var ids []string
	for id := range e.peers {
		ids = append(ids, id)
	}
	slices.Sort(ids)
	return ids
}
