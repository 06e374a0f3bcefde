package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// This file determines which subnets an accounting authority has given to peers. A peer
// certificate is valid for ever, and so is the subnet in it. Therefore the reservations in
// db/subnets alone do not decide: a subnet that any file in the directory gives to a peer is
// never given to another one, even if the reservations, the peer or the copy of its
// certificate were lost, or come from an older backup.

// A grant is a statement in a file of the directory that a subnet belongs to a peer.
type grant struct {
	subnet string
	peerID string // "" if the file does not name the peer
	file   string // relative to the directory, with slashes
}

// grants are grants by subnet.
type grants map[string][]grant

func newGrants(lists ...[]grant) grants {
	g := make(grants)
	for _, list := range lists {
		for _, one := range list {
			g[one.subnet] = append(g[one.subnet], one)
		}
	}
	return g
}

// other returns a grant by which another node than the peer has the subnet, a part of it, or
// a subnet of which it is a part. ok is false if there is none.
func (g grants) other(peerID, subnet string) (found grant, ok bool) {
	isOther := func(one grant) bool { return one.peerID != peerID }
	if i := slices.IndexFunc(g[subnet], isOther); i >= 0 {
		return g[subnet][i], true
	}
	if len(subnet) == creditorsDigits {
		return grant{}, false // subnets of creditor IDs all have the same length
	}
	for s, list := range g {
		overlaps := len(s) != creditorsDigits && (strings.HasPrefix(s, subnet) || strings.HasPrefix(subnet, s))
		if i := slices.IndexFunc(list, isOther); overlaps && i >= 0 {
			return list[i], true
		}
	}
	return grant{}, false
}

// given returns all grants: those of peers, of certificates, of requests that wait for a
// signature, of the record of an offline machine, and of the reservations for peers of any
// type. It fails if one of the files can not be read.
func (d *Dir) given(ctx context.Context) (grants, error) {
	certified, err := d.certifiedGrants(ctx)
	if err != nil {
		return grants{}, err
	}
	promised, err := d.promisedGrants()
	if err != nil {
		return grants{}, err
	}
	lists := [][]grant{certified, promised}
	for _, p := range d.pools() {
		reserved, err := p.reservations()
		if err != nil {
			return grants{}, err
		}
		lists = append(lists, reserved)
	}
	return newGrants(lists...), nil
}

// certifiedGrants returns the grants of peers, and those of other peer certificates of
// which certs/ has a copy.
func (d *Dir) certifiedGrants(ctx context.Context) (list []grant, err error) {
	ids, err := d.PeerIDs()
	if err != nil {
		return nil, err
	}
	serials := make(map[string]bool) // of the peers' certificates
	for _, id := range ids {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if !d.HasPeer(id) {
			continue
		}
		of, serial, err := d.peerGrants(id)
		if err != nil {
			return nil, fmt.Errorf("the subnet of peer %s, which must not be given to another peer, is not known: %w", id, err)
		}
		list, serials[serial] = append(list, of...), true
	}
	copies, err := filesIn(d.file("certs"), func(name string) bool {
		serial, ok := strings.CutSuffix(name, ".pem")
		return ok && !strings.HasPrefix(name, ".") && !serials[serial]
	})
	if err != nil {
		return nil, err
	}
	for _, path := range copies {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		one, ok, err := d.copyGrant(path, ids)
		if err != nil {
			return nil, err
		}
		if ok {
			list = append(list, one)
		}
	}
	return list, nil
}

// peerGrants returns the grants of a peer's directory, and the serial number of the
// certificate in it. It fails if neither the certificate nor subnet.txt has a subnet.
func (d *Dir) peerGrants(id string) (list []grant, serial string, err error) {
	folder := "peers/" + id + "/"
	cert, err := readCert(d.file("peers", id), "peercert.crt")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, "", err
	}
	if err == nil {
		serial = serialHex(cert.SerialNumber)
		// No peer accepts a certificate with an invalid comment.
		if subnet, ok, err := pki.SubnetComment(cert); err == nil && ok {
			list = append(list, grant{subnet, id, folder + "peercert.crt"})
		}
	}
	subnet, err := readLine(d.file("peers", id, "subnet.txt"))
	switch {
	case err == nil && isSubnet(subnet):
		list = append(list, grant{subnet, id, folder + "subnet.txt"})
	case err == nil && len(list) == 0:
		err = fmt.Errorf("subnet.txt holds %q: expected 6 to 16 lowercase hex digits", excerpt.Of(subnet))
	}
	if len(list) > 0 {
		err = nil
	}
	return list, serial, err
}

// copyGrant returns the grant of a certificate in certs/. ok is false if the certificate
// has no subnet, or was not signed with the node's root key. peers are the IDs of all peers.
func (d *Dir) copyGrant(path string, peers []string) (one grant, ok bool, err error) {
	name := filepath.Base(path)
	cert, err := readCert(filepath.Split(path))
	if errors.Is(err, fs.ErrNotExist) {
		return grant{}, false, nil
	}
	if err != nil {
		id, listErr := d.database().subjectID(strings.TrimSuffix(name, ".pem"))
		if listErr != nil || id == "" || id == d.identity.ID || slices.Contains(peers, id) {
			return grant{}, false, listErr
		}
		return grant{}, false, fmt.Errorf("certs/%w; it is the certificate of %s (db/index), whose subnet must not be given to another node: restore the file from a backup, or remove it if nobody was given that certificate", err, id)
	}
	subnet, ok, err := pki.SubnetComment(cert)
	if err != nil || !ok || !d.database().hasSigned(cert) {
		return grant{}, false, nil
	}
	id, err := pki.IdentityOf(cert.RawSubject)
	if err != nil {
		return grant{}, false, nil
	}
	return grant{subnet, id.ID, "certs/" + name}, true, nil
}

// promisedGrants returns the grants of requests that wait for a signature, and of the
// certificates that were signed on this machine for the requests of another one.
func (d *Dir) promisedGrants() (list []grant, err error) {
	folder := d.file(filepath.FromSlash(RequestsFolder))
	record, err := signrecord.Read(filepath.Join(folder, signrecord.Name))
	if err != nil {
		return nil, err
	}
	for _, e := range record {
		if e.Subnet != "" {
			list = append(list, grant{e.Subnet, e.NodeID, RequestsFolder + "/" + signrecord.Name})
		}
	}
	requests, err := filesIn(folder, func(name string) bool {
		return !strings.HasPrefix(name, ".") && filepath.Ext(name) == ".json"
	})
	if err != nil {
		return nil, err
	}
	for _, path := range requests {
		subnets, err := requestedSubnets(path)
		if err != nil {
			return nil, err
		}
		for _, subnet := range subnets {
			list = append(list, grant{subnet: subnet, file: RequestsFolder + "/" + filepath.Base(path)})
		}
	}
	return list, nil
}

// requestedSubnets returns the subnets in the file of a request. The rest of a request has
// no effect on the directory before the answer is filed.
func requestedSubnets(path string) (subnets []string, err error) {
	data, err := durable.Read(path, maxRequest)
	if err != nil {
		return nil, ignoreMissing(err)
	}
	var r struct {
		PeerCerts []struct {
			Subnet string `json:"subnet"`
		} `json:"peer_certs"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s: not a request: %w", path, err)
	}
	for _, p := range r.PeerCerts {
		if p.Subnet != "" {
			subnets = append(subnets, p.Subnet)
		}
	}
	return subnets, nil
}

// isSubnet reports whether s has the form of a subnet.
func isSubnet(s string) bool {
	return len(s) >= 6 && len(s) <= 16 && strings.Trim(s, "0123456789abcdef") == ""
}

// CheckSubnet returns an error if a subnet belongs to another node than the peer, or
// overlaps with such a subnet, according to the directory's peers and certificates.
func (d *Dir) CheckSubnet(ctx context.Context, peer pki.Identity, subnet string) error {
	list, err := d.certifiedGrants(ctx)
	if err != nil {
		return err
	}
	if one, ok := newGrants(list).other(peer.ID, subnet); ok {
		return fmt.Errorf("subnet %s is asked for %s, but %s has it (%s)", subnet, peer, one.owner(), one.file)
	}
	return nil
}

// owner returns the ID of the peer for messages.
func (g grant) owner() string {
	if g.peerID == "" {
		return "another peer"
	}
	return excerpt.Of(g.peerID)
}
