package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"peerlink/internal/durable"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// creditorsDigits is the number of hex digits of a subnet of creditor IDs. Subnets of debtor
// IDs have more.
const creditorsDigits = 6

// A pool is one of the two sets of subnets of an accounting authority. It is a
// directory with a file for each reserved subnet, and the file SEQNUM with the last
// number that was given. A subnet is reserved by creating its file exclusively, so that
// reservations are safe against other processes, including the reference scripts.
type pool struct {
	dir    string // db/subnets/creditors or db/subnets/debtors
	prefix string // prefix of each subnet
	digits int    // number of hex digits after the prefix
	start  int    // SEQNUM before the first reservation
}

func (d *Dir) pool(t nodetype.Type) pool {
	if t == nodetype.CreditorsAgent {
		return pool{dir: d.file("db", "subnets", "creditors"), digits: creditorsDigits, start: 0}
	}
	return pool{dir: d.file("db", "subnets", "debtors"), prefix: d.identity.ID, digits: 2, start: -1}
}

// pools returns both pools.
func (d *Dir) pools() []pool {
	return []pool{d.pool(nodetype.CreditorsAgent), d.pool(nodetype.DebtorsAgent)}
}

func (p pool) seqnumFile() string { return p.dir + string(os.PathSeparator) + "SEQNUM" }
func (p pool) path(subnet string) string {
	return p.dir + string(os.PathSeparator) + subnet
}

// name returns the name of a reservation's file, relative to the node's directory, with slashes.
func (p pool) name(subnet string) string {
	return "db/subnets/" + filepath.Base(p.dir) + "/" + subnet
}

// reserveSubnet returns the subnet for a new peer, and ensures that the subnet is reserved. If
// the peer has had a subnet before, by a certificate or by the reservation of an interrupted
// attempt, reserveSubnet returns that subnet, and isNew is false. It fails if the subnet in the
// peer's certificate belongs to another node too. If this node is not an accounting authority,
// the subnet is "". given are all grants. The caller must hold the directory's lock.
func (d *Dir) reserveSubnet(peer pki.Identity, given grants) (subnet string, isNew bool, err error) {
	if d.identity.Type != nodetype.AccountingAuthority {
		return "", false, nil
	}
	if err := errors.Join(d.checkContradiction(peer, given), d.checkOneSubnet(peer, given)); err != nil {
		return "", false, err
	}
	p := d.pool(peer.Type)
	// After checkContradiction, nobody else uses the subnet in the peer's certificate: another node
	// with that subnet is deactivated.
	subnet = p.ownedBy(peer.ID, given)
	for certified := range given.certificatesOf(peer.ID) { // at most one, see checkOneSubnet
		if p.contains(certified) {
			subnet = certified
		}
	}
	if subnet != "" {
		return subnet, false, p.ensureReserved(peer.ID, subnet)
	}
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return "", false, err
	}
	subnet, err = p.reserve(peer.ID, given)
	return subnet, true, err
}

// ownedBy returns the first of the pool's subnets that belongs to the peer, and to no other
// node, or "".
func (p pool) ownedBy(peerID string, given grants) string {
	for _, subnet := range slices.Sorted(maps.Keys(given)) {
		own, other := false, false
		for _, g := range given[subnet] {
			own = own || g.peerID == peerID
			// A grant without a peer ID, such as that of a request, is assumed to be for the
			// peer that the other files name.
			other = other || g.peerID != peerID && g.peerID != ""
		}
		if own && !other && p.contains(subnet) {
			return subnet
		}
	}
	return ""
}

// reserve reserves the next subnet that is neither reserved nor given to another node. After
// the pool's last subnet the search continues with the pool's first subnet.
func (p pool) reserve(peerID string, given grants) (subnet string, err error) {
	last, err := p.lockedLastNumber()
	if err != nil {
		return "", err
	}
	first, count := p.start+1, 1<<(4*p.digits)-p.start-1
	for i := range count {
		n := first + (last+1-first+i)%count
		subnet = p.prefix + fmt.Sprintf("%0*x", p.digits, n)
		if _, taken := given.conflict(peerID, subnet); taken {
			continue
		}
		err := durable.Create(p.path(subnet), []byte(peerID+"\n"), 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("reserve subnet %s: %w", subnet, err)
		}
		if err := durable.Replace(p.seqnumFile(), []byte(strconv.Itoa(n)+"\n"), 0o644); err != nil {
			return "", errors.Join(err, p.release(subnet))
		}
		return subnet, nil
	}
	return "", fmt.Errorf("no free subnet is left in %s: all %d are taken; \"peerlink init\" releases those that were reserved and never given to a peer", p.dir, count)
}

// ensureReserved ensures that a subnet which a peer has is reserved. An existing reservation is
// left unchanged, even if it is for another node: any reservation prevents the subnet from being
// given again.
func (p pool) ensureReserved(peerID, subnet string) error {
	if err := os.MkdirAll(p.dir, 0o755); err != nil {
		return err
	}
	err := durable.Create(p.path(subnet), []byte(peerID+"\n"), 0o644)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	return err
}

// reservations returns the pool's reservations. A reservation that cannot be read is a grant
// without a peer ID.
func (p pool) reservations() (list []grant, err error) {
	files, err := filesIn(p.dir, isSubnet)
	if err != nil {
		return nil, err
	}
	for _, path := range files {
		owner, err := readLine(path)
		if err != nil || checkID(owner) != nil {
			owner = ""
		}
		list = append(list, grant{subnet: filepath.Base(path), peerID: owner, file: p.name(filepath.Base(path))})
	}
	return list, nil
}

func (p pool) release(subnet string) error { return os.Remove(p.path(subnet)) }

// lockedLastNumber calls lastNumber while it holds the lock on SEQNUM that the reference scripts
// take with flock(1) to read the file. The lock offers little protection, because the scripts
// truncate and write the file without the lock. Two peers never get the same subnet nevertheless,
// because reservations are created exclusively. So if the lock is held for long, as any user who
// can read the file may do, lockedLastNumber goes on without it.
func (p pool) lockedLastNumber() (int, error) {
	if runtime.GOOS == "windows" {
		return p.lastNumber() // Windows has no flock(1), and a locked file can not be read there
	}
	// Opening a named pipe would block forever; lastNumber returns an error for it.
	if fi, err := os.Stat(p.seqnumFile()); err != nil || !fi.Mode().IsRegular() {
		return p.lastNumber()
	}
	l := flock.New(p.seqnumFile(), flock.SetFlag(os.O_RDONLY))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := l.TryLockContext(ctx, 5*time.Millisecond); err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, context.DeadlineExceeded) {
		return 0, fmt.Errorf("lock %s: %w", p.seqnumFile(), err)
	}
	defer l.Close()
	return p.lastNumber()
}

// lastNumber returns the number in SEQNUM, the last number that was given. While the reference
// scripts write SEQNUM, it is empty for a moment; in that case, and if SEQNUM is damaged,
// lastNumber returns the highest reserved number.
func (p pool) lastNumber() (int, error) {
	s, err := readLine(p.seqnumFile())
	if errors.Is(err, fs.ErrNotExist) {
		return p.start, nil
	}
	if isMissingOrDamaged(err) {
		return p.highestReserved()
	}
	if err != nil {
		return 0, err
	}
	// The number only determines where the search for a free subnet begins.
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < p.start || n >= 1<<(4*p.digits) {
		return p.highestReserved()
	}
	return n, nil
}

// highestReserved returns the highest reserved number.
func (p pool) highestReserved() (int, error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return 0, err
	}
	highest := p.start
	for _, e := range entries {
		digits, ok := strings.CutPrefix(e.Name(), p.prefix)
		n, err := strconv.ParseUint(digits, 16, 31)
		if ok && err == nil && len(digits) == p.digits {
			highest = max(highest, int(n))
		}
	}
	return highest, nil
}
