package node

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"peerlink/internal/durable"
	"peerlink/internal/excerpt"
	"peerlink/internal/wait"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// This file determines which subnets an accounting authority has given to peers. A peer
// certificate is valid for ever, and so is the subnet in it. Therefore the reservations in
// db/subnets alone do not decide: a subnet that any file in the directory gives to a peer is
// never given to another one, even if the reservations, the peer or the copy of its
// certificate were lost, or come from an older backup.

// A grant is a statement in a file of the directory that a subnet belongs to a peer. It is
// certified if the file is a certificate, or the record of a certificate.
type grant struct {
	subnet          string
	peerID          string // "" if the file does not name the peer
	file            string // relative to the directory, with slashes
	contradictsCert bool   // the peer's certificate has another subnet

	certified bool
}

// grants are grants by subnet.
type grants map[string][]grant

func newGrants(lists ...[]grant) grants {
	g := make(grants)
	for _, list := range lists {
		for _, gr := range list {
			g[gr.subnet] = append(g[gr.subnet], gr)
		}
	}
	return g
}

// conflict returns a grant by which another node than the peer has the subnet, or a
// subnet that overlaps with it. A grant without a peer ID is assumed to be for another
// node. ok is false if there is no such grant.
func (g grants) conflict(peerID, subnet string) (found grant, ok bool) {
	return g.find(subnet, func(gr grant) bool { return gr.peerID != peerID })
}

// find returns a matching grant of the subnet, or of a subnet that overlaps with it. ok is false
// if there is none.
func (g grants) find(subnet string, matches func(grant) bool) (found grant, ok bool) {
	if i := slices.IndexFunc(g[subnet], matches); i >= 0 {
		return g[subnet][i], true
	}
	if len(subnet) == creditorsDigits {
		return grant{}, false // subnets of creditor IDs all have the same length
	}
	for s, list := range g {
		overlaps := len(s) != creditorsDigits && (strings.HasPrefix(s, subnet) || strings.HasPrefix(subnet, s))
		if i := slices.IndexFunc(list, matches); overlaps && i >= 0 {
			return list[i], true
		}
	}
	return grant{}, false
}

// isDeactivated reports whether the link with a peer was ended for good. If that can not be
// determined, the result is false.
func (d *Dir) isDeactivated(peerID string) bool {
	deactivated, err := exists(d.file("peers", peerID, "DEACTIVATED"))
	return err == nil && deactivated
}

// certificatesOf returns one certified grant of the peer for each subnet, by subnet.
func (g grants) certificatesOf(peerID string) map[string]grant {
	found := make(map[string]grant)
	for subnet, list := range g {
		if i := slices.IndexFunc(list, func(gr grant) bool { return gr.certified && gr.peerID == peerID }); i >= 0 {
			found[subnet] = list[i]
		}
	}
	return found
}

// checkOneSubnet returns an error if the peer has certificates with different subnets: the peer
// accepts only the one that it has registered, and the files do not show which that is.
func (d *Dir) checkOneSubnet(peer pki.Identity, given grants) error {
	certificates := given.certificatesOf(peer.ID)
	if len(certificates) < 2 {
		return nil
	}
	var list []string
	for _, subnet := range slices.Sorted(maps.Keys(certificates)) {
		list = append(list, fmt.Sprintf("%s (%s)", subnet, certificates[subnet].file))
	}
	return fmt.Errorf("%s has certificates with different subnets: %s. It accepts only the one that it has registered, peers/%s/sub-ca.crt in its own directory: ask its owner for the subnet in it, remove the files with other subnets (of %s/%s only the lines), and sign again",
		peer, strings.Join(list, ", "), d.identity.ID, RequestsFolder, signrecord.Name)
}

// isRival reports whether a grant gives a subnet to another node than the peer, and the link with
// that node was not ended for good. A grant without a peer ID, such as that of a request, may be
// for the peer: the result is false.
func (d *Dir) isRival(gr grant, peerID string) bool {
	return gr.peerID != "" && gr.peerID != peerID && !d.isDeactivated(gr.peerID)
}

// allGrants returns all grants: those of peers, of certificates, of requests that wait for a
// signature, of the record of what was signed on this machine, and of the reservations for peers
// of any type. It fails if one of the files, other than a reservation, cannot be read. Nodes that
// give no subnets have no grants.
func (d *Dir) allGrants(ctx context.Context) (grants, error) {
	if d.identity.Type != nodetype.AccountingAuthority {
		return grants{}, nil
	}
	held, err := d.heldGrants(ctx)
	if err != nil {
		return grants{}, err
	}
	recorded, err := d.recordedGrants()
	if err != nil {
		return grants{}, err
	}
	requested, err := d.requestedGrants()
	if err != nil {
		return grants{}, err
	}
	lists := [][]grant{held, recorded, requested}
	for _, p := range d.pools() {
		reserved, err := p.reservations()
		if err != nil {
			return grants{}, err
		}
		lists = append(lists, reserved)
	}
	return newGrants(lists...), nil
}

// heldGrants returns the grants in the directories of peers (in the certificates, and in
// subnet.txt), and those in the copies of other peer certificates in certs/. If it fails, it also
// returns the grants in the files that could be read, unless ctx is done.
func (d *Dir) heldGrants(ctx context.Context) (list []grant, err error) {
	ids, err := d.PeerIDs()
	if err != nil {
		return nil, err
	}
	serials := make(map[string]bool) // of the peers' certificates
	deadline := time.Now().Add(makingTime)
	var errs []error
	for _, id := range ids {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		ofPeer, serial, err := d.peerGrants(id)
		for err != nil && d.isBeingMade(id) && time.Now().Before(deadline) {
			if sleepErr := wait.Sleep(ctx, makingTime/20); sleepErr != nil {
				return nil, sleepErr
			}
			ofPeer, serial, err = d.peerGrants(id)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("the subnet of peer %s, which must not be given to another peer, is not known: %w", id, err))
			continue
		}
		list, serials[serial] = append(list, ofPeer...), true
	}
	copies, err := d.database().certFiles()
	if err != nil {
		return list, errors.Join(append(errs, err)...)
	}
	for _, path := range copies {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if serial, ok := strings.CutSuffix(filepath.Base(path), ".pem"); ok && serials[serial] {
			continue
		}
		inFile, err := d.grantsInCertFile(path, ids)
		list, errs = append(list, inFile...), append(errs, err)
	}
	list, err = d.withoutReplaced(list)
	return list, errors.Join(append(errs, err)...)
}

// withoutReplaced removes the grants of peers whose subnet has gone to another node, according to the
// record of what was signed on this machine. The files of this machine may still show the earlier peer.
func (d *Dir) withoutReplaced(list []grant) ([]grant, error) {
	record, err := signrecord.Read(d.file(filepath.FromSlash(RequestsFolder), signrecord.Name))
	if err != nil {
		return list, err
	}
	return slices.DeleteFunc(list, func(gr grant) bool {
		return slices.ContainsFunc(record, func(e signrecord.Entry) bool {
			return e.Replaces != "" && e.Replaces == gr.peerID && e.NodeID != gr.peerID && e.Subnet == gr.subnet
		})
	}), nil
}

// makingTime is how long heldGrants waits, for all peers together, for directories that the
// reference scripts may be making. Even on a busy machine the scripts take less for a peer, if
// they do not prompt meanwhile.
const makingTime = 2 * time.Second

// isBeingMade reports whether the directory of a peer has changed recently: the reference scripts,
// which do not hold the directory's lock, may be making it.
func (d *Dir) isBeingMade(id string) bool {
	fi, err := os.Stat(d.file("peers", id))
	return err == nil && time.Since(fi.ModTime()).Abs() < 10*time.Second
}

// peerGrants returns the grants of a peer's directory, and the serial number of the
// certificate in it. It fails if neither the certificate nor subnet.txt has a subnet, unless
// there is no subnet.txt, and no peer either ([Dir.HasPeer]).
func (d *Dir) peerGrants(id string) (list []grant, serial string, err error) {
	folder, certSubnet := "peers/"+id+"/", ""
	cert, certErr := readCert(d.file("peers", id), "peercert.crt")
	if certErr == nil {
		serial = pki.SerialHex(cert.SerialNumber)
		// No peer accepts a certificate with an invalid comment.
		if subnet, ok, err := pki.SubnetComment(cert); err == nil && ok {
			certSubnet = subnet
			list = append(list, grant{subnet: subnet, peerID: id, file: folder + "peercert.crt", certified: true})
		}
	}
	subnet, err := readLine(d.file("peers", id, "subnet.txt"))
	if err == nil && isSubnet(subnet) {
		contradicts := certSubnet != "" && certSubnet != subnet
		list = append(list, grant{subnet: subnet, peerID: id, file: folder + "subnet.txt", contradictsCert: contradicts})
	}
	if len(list) > 0 || errors.Is(err, fs.ErrNotExist) && !d.HasPeer(id) {
		return list, serial, nil
	}
	if err == nil {
		err = fmt.Errorf("subnet.txt holds %q: expected 6 to 16 lowercase hex digits", excerpt.Of(subnet))
	}
	return nil, "", errors.Join(err, certErr)
}

// grantsInCertFile returns the grants in the certificates in a file in certs/. The file may have
// any name, because an operator may have put a certificate there that a peer has sent back.
// Certificates that were not signed with the node's root key are skipped. peers are the IDs of
// all peers.
func (d *Dir) grantsInCertFile(path string, peers []string) (list []grant, err error) {
	certs, err := readCerts(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, d.unreadableCertFileError(path, peers, err)
	}
	for _, cert := range certs {
		subnet, ok, err := pki.SubnetComment(cert)
		if err != nil || !ok || !d.database().hasSigned(cert) {
			continue
		}
		if id, err := pki.IdentityOf(cert.RawSubject); err == nil {
			list = append(list, grant{subnet: subnet, peerID: id.ID, file: "certs/" + filepath.Base(path), certified: true})
		}
	}
	return list, nil
}

// unreadableCertFileError returns the error for a file in certs/ that cannot be read for the given
// reason. The error is nil if the certificate in the file is not needed, because it belongs to the
// node itself or to a known peer, according to db/index, or if the name of the file is not that of
// a certificate.
func (d *Dir) unreadableCertFileError(path string, peers []string, reason error) error {
	name := filepath.Base(path)
	ext := filepath.Ext(name)
	id, err := d.database().subjectID(strings.ToUpper(strings.TrimSuffix(name, ext)))
	if err != nil || id == d.identity.ID || slices.Contains(peers, id) {
		return err
	}
	switch strings.ToLower(ext) {
	case ".pem", ".crt", ".cer", ".der":
		return fmt.Errorf("%s can not be read: %w; if it is the certificate of a peer, its subnet must not be given to another node: replace the file with a good copy; if it is no certificate, or the certificate was given to nobody, move the file out of certs", path, reason)
	}
	return nil
}

// nodesWithoutCopy returns the IDs of the nodes for which db/index lists a certificate of
// which the directory has no copy, so that the subnet in it is not known.
func (d *Dir) nodesWithoutCopy() (map[string]bool, error) {
	certs, err := d.knownCertificates()
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	for _, cert := range certs {
		known[pki.SerialHex(cert.SerialNumber)] = true
	}
	index, err := d.database().index()
	if err != nil {
		return nil, err
	}
	ids := make(map[string]bool)
	for line := range strings.Lines(string(index)) {
		if serial, id, ok := parseIndexLine(line); ok && !known[serial] && id != d.identity.ID {
			ids[id] = true
		}
	}
	return ids, nil
}

// recordedGrants returns the grants of the certificates that were signed on this machine for
// requests of another machine.
func (d *Dir) recordedGrants() (list []grant, err error) {
	record, err := signrecord.Read(d.file(filepath.FromSlash(RequestsFolder), signrecord.Name))
	if err != nil {
		return nil, err
	}
	for i, e := range record {
		if e.Subnet != "" && record.Current(i) {
			list = append(list, grant{subnet: e.Subnet, peerID: e.NodeID, file: RequestsFolder + "/" + signrecord.Name, certified: true})
		}
	}
	return list, nil
}

// requestedGrants returns the grants of requests that wait for a signature.
func (d *Dir) requestedGrants() (list []grant, err error) {
	folder := d.file(filepath.FromSlash(RequestsFolder))
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
			Subnet   string `json:"subnet"`
			Replaces *struct {
				KeepSubnet bool `json:"keep_subnet"`
			} `json:"replaces"`
		} `json:"peer_certs"`
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return nil, fmt.Errorf("%s is damaged, a request that waits for a signature: %w; if its answer is not needed, \"peerlink request forget\" removes it", path, err)
	}
	for _, p := range r.PeerCerts {
		// A subnet that is kept is granted to the earlier peer, whose files show that.
		if p.Subnet != "" && (p.Replaces == nil || !p.Replaces.KeepSubnet) {
			subnets = append(subnets, p.Subnet)
		}
	}
	return subnets, nil
}

// isSubnet reports whether s has the form of a subnet.
func isSubnet(s string) bool {
	return len(s) >= 6 && len(s) <= 16 && strings.Trim(s, "0123456789abcdef") == ""
}

// HeldSubnets are the subnets that peers have, according to the files of peers and the
// certificates in the directory.
type HeldSubnets struct {
	d      *Dir
	grants grants
}

// HeldSubnets reads the subnets that peers have. It reads all certificates. The node must be an
// accounting authority.
func (d *Dir) HeldSubnets(ctx context.Context) (*HeldSubnets, error) {
	list, err := d.heldGrants(ctx)
	return &HeldSubnets{d, newGrants(list)}, err
}

// Check returns an error if a subnet belongs to another node than the peer, or overlaps with
// such a subnet, or if the peer has a certificate with another subnet. If the peer has a
// certificate with the subnet, nodes whose link was ended for good are ignored.
func (c *HeldSubnets) Check(peer pki.Identity, subnet string) error {
	certificates := c.grants.certificatesOf(peer.ID)
	_, certified := certificates[subnet]
	for _, other := range certificates {
		if other.subnet != subnet {
			return fmt.Errorf("subnet %s, requested for %s, which has a certificate with the subnet %s already (%s): a node keeps its subnet for ever", subnet, peer, other.subnet, c.d.file(filepath.FromSlash(other.file)))
		}
	}
	isOther := func(gr grant) bool {
		if certified { // every grant is that of a peer or certificate, and has an ID
			return c.d.isRival(gr, peer.ID)
		}
		return gr.peerID != peer.ID
	}
	if other, ok := c.grants.find(subnet, isOther); ok {
		return fmt.Errorf("subnet %s, requested for %s, or one that overlaps with it, already belongs to %s (%s)", subnet, peer, other.owner(), c.d.file(filepath.FromSlash(other.file)))
	}
	return nil
}

// CheckTakeover returns an error if a node can not get the subnet of the peer that it replaces: if the
// peer is known and has another one, if a third node has it, or if the new node has a certificate with
// another one.
func (c *HeldSubnets) CheckTakeover(replaced string, next pki.Identity, subnet string) error {
	known := c.grants.certificatesOf(replaced)
	if _, same := known[subnet]; len(known) > 0 && !same {
		return fmt.Errorf("subnet %s, requested for %s as that of %s, which has another one: %s", subnet, next, replaced, strings.Join(slices.Sorted(maps.Keys(known)), ", "))
	}
	for s, own := range c.grants.certificatesOf(next.ID) {
		if s != subnet {
			return fmt.Errorf("subnet %s, requested for %s, which has a certificate with the subnet %s already (%s): a node keeps its subnet for ever", subnet, next, s, c.d.file(filepath.FromSlash(own.file)))
		}
	}
	third := func(gr grant) bool {
		return gr.peerID != replaced && gr.peerID != next.ID && !c.d.isDeactivated(gr.peerID)
	}
	if other, ok := c.grants.find(subnet, third); ok {
		return fmt.Errorf("subnet %s, requested for %s as that of %s, or one that overlaps with it, belongs to %s too (%s)", subnet, next, replaced, other.owner(), c.d.file(filepath.FromSlash(other.file)))
	}
	return nil
}

// SubnetHolder is a node to which a subnet was given, and the files that show it.
type SubnetHolder struct {
	Subnet string
	Peer   string   // node ID
	Files  []string // relative to the directory, with slashes
}

// SubnetHolders returns the nodes that have subnets, according to the files of peers,
// certificates, and the record of what was signed on this machine, sorted by subnet. For a node
// that is not an accounting authority, the result is empty. If SubnetHolders fails, it also
// returns the nodes according to the files that could be read.
func (d *Dir) SubnetHolders(ctx context.Context) (holders []SubnetHolder, err error) {
	if d.identity.Type != nodetype.AccountingAuthority {
		return nil, nil
	}
	held, err := d.heldGrants(ctx)
	recorded, recordErr := d.recordedGrants()
	given := newGrants(held, recorded)
	for _, subnet := range slices.Sorted(maps.Keys(given)) {
		first := len(holders)
		for _, gr := range given[subnet] {
			if gr.contradictsCert {
				continue // the peer has the subnet in its certificate instead
			}
			i := slices.IndexFunc(holders[first:], func(h SubnetHolder) bool { return h.Peer == gr.peerID })
			if i < 0 {
				i, holders = len(holders)-first, append(holders, SubnetHolder{Subnet: subnet, Peer: gr.peerID})
			}
			if files := &holders[first+i].Files; !slices.Contains(*files, gr.file) {
				*files = append(*files, gr.file)
			}
		}
	}
	return holders, errors.Join(err, recordErr)
}

// checkContradiction returns an error if the subnet in a certificate of the peer is equal to, or
// overlaps with, the subnet of another node whose link was not ended for good. The peer must not
// be given another subnet without an error: if it has registered its certificate, it accepts no
// certificate with another subnet, and the files do not show whether it has registered it.
func (d *Dir) checkContradiction(peer pki.Identity, g grants) error {
	certificates := g.certificatesOf(peer.ID)
	isOther := func(gr grant) bool { return d.isRival(gr, peer.ID) }
	for _, subnet := range slices.Sorted(maps.Keys(certificates)) {
		other, ok := g.find(subnet, isOther)
		if j := slices.IndexFunc(g[subnet], func(gr grant) bool { return gr.certified && isOther(gr) }); j >= 0 {
			other = g[subnet][j]
		}
		if !ok {
			continue
		}
		own := certificates[subnet].file
		what := fmt.Sprintf("%s has a certificate with the subnet %s already (%s)", peer, subnet, own)
		if !other.certified {
			return fmt.Errorf("%s, but %s says that this subnet, or one that overlaps with it, belongs to %s: remove %s if %s has no certificate with it", what, other.file, other.owner(), other.file, other.owner())
		}
		remedy := "remove " + own
		if own == RequestsFolder+"/"+signrecord.Name {
			remedy = "remove its line from " + own
		}
		return fmt.Errorf("%s, and %s has one with the same subnet, or one that overlaps with it (%s). If %s uses its certificate, it accepts no other, and %s has to give the subnet up: \"peerlink check\" says how. Otherwise %s, and sign again: the new certificate has another subnet",
			what, other.owner(), other.file, peer.ID, other.owner(), remedy)
	}
	return nil
}

// owner returns the ID of the peer for messages, or "another peer" if the grant has none.
func (g grant) owner() string {
	if g.peerID == "" {
		return "another peer"
	}
	return excerpt.Of(g.peerID)
}
