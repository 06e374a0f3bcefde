package offline

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"peerlink/internal/durable"
	"peerlink/node"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// signRecordPath returns the path of the record of certificates signed on this machine.
func signRecordPath(d *node.Dir) string { return filepath.Join(folder(d), signrecord.Name) }

// ComparesWithoutRecord reports whether the request has certificates, and d has no record of
// certificates that were signed there: then [Request.CheckConflicts] compares them only with the
// directory, which may be older than what was signed.
func (r *Request) ComparesWithoutRecord(d *node.Dir) (bool, error) {
	if len(r.servers)+len(r.peers) == 0 {
		return false, nil
	}
	record, err := signrecord.Read(signRecordPath(d))
	return len(record) == 0, err
}

// certificates returns the properties of the requested certificates.
func (r *Request) certificates() []signrecord.Certificate {
	var all []signrecord.Certificate
	for _, s := range r.servers {
		all = append(all, signrecord.Certificate{
			Kind: signrecord.ServerCert, NodeType: r.Node.Type.String(), NodeID: r.Node.ID,
			Fingerprint: pki.Fingerprint(s.csr.PublicKey), Days: s.days, Serial: pki.SerialHex(s.serial),
		})
	}
	for _, p := range r.peers {
		c := signrecord.PeerCertificate(p.bundle.Identity, p.bundle.Root, p.subnet, pki.SerialHex(p.serial))
		if p.replaces != nil && (p.replaces.keepSubnet || p.replaces.id == c.NodeID) {
			c.Replaces = p.replaces.id
		}
		all = append(all, c)
	}
	return all
}

// RecordSigned records a signed request in this machine's copy of the node's directory. Later
// requests are compared with this record ([Request.CheckConflicts], [Request.Changes]). RecordSigned
// also reserves the requested subnets there, so that no other program that signs in the same
// directory gives them again. It fails if the request contradicts what another process has
// recorded meanwhile. The answer should be handed over only after RecordSigned has succeeded. now
// is the time of signing.
func (r *Request) RecordSigned(ctx context.Context, d *node.Dir, now time.Time) error {
	return d.Locked(ctx, func(l *node.Locked) error {
		if err := os.MkdirAll(folder(d), 0o755); err != nil {
			return err
		}
		if err := signrecord.Add(signRecordPath(d), now, r.ID, r.certificates()); err != nil {
			return err
		}
		// After the record, from which [node.Dir.Repair] makes missing reservations.
		for _, p := range r.peers {
			reserve := func() error { return l.EnsureReserved(p.bundle.Identity, p.subnet) }
			if p.replaces != nil && p.replaces.keepSubnet {
				reserve = func() error { return l.AssignSubnet(p.replaces.id, p.bundle.Identity, p.subnet) }
			}
			if err := reserve(); err != nil {
				return err
			}
		}
		if r.info == nil {
			return nil
		}
		return durable.Replace(filepath.Join(d.Path(), filepath.FromSlash(node.LastSigned)), r.raw, 0o644)
	})
}
