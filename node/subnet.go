package node

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"github.com/gofrs/flock"

	"peerlink/internal/durable"
	"peerlink/node/nodetype"
)

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
		return pool{dir: d.file("db", "subnets", "creditors"), digits: 6, start: 0}
	}
	return pool{dir: d.file("db", "subnets", "debtors"), prefix: d.identity.ID, digits: 2, start: -1}
}

func (p pool) seqnum() string { return p.dir + string(os.PathSeparator) + "SEQNUM" }
func (p pool) path(subnet string) string {
	return p.dir + string(os.PathSeparator) + subnet
}

// reserve reserves the next free subnet for the peer. The caller must hold the
// directory's lock.
func (p pool) reserve(peerID string) (subnet string, err error) {
	last, err := p.lockedLast()
	if err != nil {
		return "", err
	}
	for n := last + 1; ; n++ {
		if n >= 1<<(4*p.digits) {
			return "", fmt.Errorf("no free subnet is left in %s: all %d are taken", p.dir, 1<<(4*p.digits)-p.start-1)
		}
		subnet = p.prefix + fmt.Sprintf("%0*x", p.digits, n)
		err := durable.Create(p.path(subnet), []byte(peerID+"\n"), 0o644)
		if errors.Is(err, fs.ErrExist) {
			continue
		}
		if err != nil {
			return "", fmt.Errorf("reserve subnet %s: %w", subnet, err)
		}
		if err := durable.Replace(p.seqnum(), []byte(strconv.Itoa(n)+"\n"), 0o644); err != nil {
			return "", errors.Join(err, p.release(subnet))
		}
		return subnet, nil
	}
}

// reserved returns the subnet that is reserved for the peer already, by an earlier
// attempt that was interrupted.
func (p pool) reserved(peerID string) (subnet string, ok bool, err error) {
	entries, err := os.ReadDir(p.dir)
	if err != nil {
		return "", false, err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") || e.Name() == "SEQNUM" {
			continue
		}
		if owner, err := readLine(p.path(e.Name())); err == nil && owner == peerID {
			return e.Name(), true, nil
		}
	}
	return "", false, nil
}

func (p pool) release(subnet string) error { return os.Remove(p.path(subnet)) }

// lockedLast calls last while it holds the lock on SEQNUM that the reference scripts
// take with flock(1) to read the file. The lock offers little protection, because the
// scripts truncate and write the file without it. Two peers never get the same subnet
// because reservations are created exclusively.
func (p pool) lockedLast() (int, error) {
	if runtime.GOOS == "windows" {
		return p.last() // Windows has no flock(1), and a locked file can not be read there
	}
	// Opening a named pipe would block forever; last returns an error for it.
	if fi, err := os.Stat(p.seqnum()); err != nil || !fi.Mode().IsRegular() {
		return p.last()
	}
	l := flock.New(p.seqnum(), flock.SetFlag(os.O_RDONLY))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if _, err := l.TryLockContext(ctx, 5*time.Millisecond); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("lock %s, which another program holds: %w", p.seqnum(), err)
	}
	defer l.Close()
	return p.last()
}

// last returns the last number that was given. SEQNUM is empty for a moment while the
// reference scripts write it; in that case last returns the highest reserved number.
func (p pool) last() (int, error) {
	s, err := readLine(p.seqnum())
	if errors.Is(err, fs.ErrNotExist) {
		return p.start, nil
	}
	if err != nil {
		return 0, err
	}
	if s == "" {
		return p.highest()
	}
	n, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil || n < p.start {
		return 0, fmt.Errorf("%s holds %q instead of the last subnet number given out", p.seqnum(), s)
	}
	return n, nil
}

// highest returns the highest reserved number.
func (p pool) highest() (int, error) {
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
