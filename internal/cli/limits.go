package cli

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"peerlink/link"
)

// minFree is how much of the disk is left to the node's own applications, in
// bytes: beyond that no more is taken from peers than the applications take out.
const minFree = 64 << 20

// reserve is the size of the file that is given up when the disk is full, in
// bytes.
const reserve = 16 << 20

// defaultQuota is how much the messages of one peer may take, in bytes.
const defaultQuota = 1 << 30

// limitFlags bound what one peer can take of this node.
type limitFlags struct {
	connections, rate int
	quota             byteSize
	idle              time.Duration
}

func (l *limitFlags) add(c *cobra.Command) {
	l.quota = defaultQuota
	flags := c.Flags()
	flags.IntVar(&l.connections, "max-connections-per-peer", 10, "no more than `N` connections from one peer at once")
	flags.IntVar(&l.rate, "peer-rate", link.DefaultMaxRate, "take no more than `N` messages a second from one peer; 0: no limit")
	flags.Var(&l.quota, "peer-quota", "`SIZE` that the messages of one peer may take in the embedded broker before its next ones must wait, as 500MB or 1GiB; 0: no limit")
	flags.DurationVar(&l.idle, "idle", 10*time.Minute, "after which `TIME` a connection with nothing to send rests; 0: never")
	fromEnv(flags, "max-connections-per-peer", "PEERLINK_MAX_CONNECTIONS_PER_PEER", maxConnectionsVariable)
	fromEnv(flags, "peer-rate", "PEERLINK_PEER_RATE")
	fromEnv(flags, "peer-quota", "PEERLINK_PEER_QUOTA")
	fromEnv(flags, "idle", "PEERLINK_IDLE")
}

// set checks the limits, and makes those of the link hold.
func (l *limitFlags) set(cfg *link.Config, broker string) error {
	switch {
	case l.quota != defaultQuota && broker != embeddedBroker:
		return usagef("--peer-quota is for the embedded broker: in RabbitMQ the node's own queue has limits, see docs/security.md")
	case l.connections < 1:
		return usagef("--max-connections-per-peer %d: expected 1 or more", l.connections)
	case l.rate < 0:
		return usagef("--peer-rate %d: expected a number of messages, or 0", l.rate)
	case l.idle < 0:
		return usagef("--idle %v: expected a time like 10m, or 0", l.idle)
	}
	cfg.MaxConnsPerPeer, cfg.MaxRate, cfg.IdleTimeout = l.connections, l.rate, l.idle
	if l.idle == 0 {
		cfg.IdleTimeout = -1
	}
	return nil
}

// byteSize is a flag with a number of bytes, and a unit.
type byteSize int64

// sizeUnits are the units, the longer names before those they end with.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// Set reads a size: a whole number and a unit. Without a unit it is bytes.
func (b *byteSize) Set(s string) error {
	digits, unit := s, int64(1)
	for _, u := range sizeUnits {
		if number, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = strings.TrimSpace(number), u.bytes
			break
		}
	}
	n, err := strconv.ParseUint(digits, 10, 63)
	if err != nil || n > uint64(math.MaxInt64/unit) {
		return fmt.Errorf("expected a size as 500MB or 1GiB")
	}
	*b = byteSize(int64(n) * unit)
	return nil
}

// String writes the size with the largest unit that leaves a whole number.
func (b byteSize) String() string {
	best := sizeUnits[len(sizeUnits)-1]
	for _, u := range sizeUnits {
		if b != 0 && int64(b)%u.bytes == 0 && u.bytes > best.bytes {
			best = u
		}
	}
	if b == 0 {
		return "0"
	}
	return strconv.FormatInt(int64(b)/best.bytes, 10) + best.name
}

// Type is what the help says.
func (*byteSize) Type() string { return "SIZE" }
