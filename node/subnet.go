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

// A pool is one of an accounting authority's two stocks of subnets: a
// directory with a file per reserved subnet, and SEQNUM, the last number given
// out. The exclusive creation of that file is the reservation, so this works
// against other processes, the reference scripts included.
type pool struct {
	dir    string // db/subnets/creditors or db/subnets/debtors
	prefix string // what each subnet starts with
	digits int    // how many hex digits follow
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

// reserve takes the next free subnet for the peer. The caller holds the
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

// reserved finds the subnet that an interrupted earlier attempt reserved for
// the peer.
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

// lockedLast is last with the lock on SEQNUM that the reference scripts take to
// read it, with flock(1). It guards little: they empty the file before they
// write it without the lock. That two do not get the same subnet rests on the
// exclusive creation.
func (p pool) lockedLast() (int, error) {
	if runtime.GOOS == "windows" {
		return p.last() // there is no flock(1), and a locked file can not be read
	}
	// Opening a named pipe would wait for ever; last says what is wrong with it.
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

// last reads the last number given out. SEQNUM is empty for a moment while the
// reference scripts write it: then reservations tell.
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

// highest is the highest number that is reserved.
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
