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

// minFree is the free disk space, in bytes, below which messages from peers are accepted only as
// fast as the applications consume messages; most of the rest is for messages of the node's own
// applications (see MinFree in embedded.Options).
const minFree = 64 << 20

// reserve is the size, in bytes, of the embedded broker's file that is removed when the disk is
// full.
const reserve = 16 << 20

// defaultQuota is the default maximum size, in bytes, of the stored messages from one peer.
const defaultQuota = 1 << 30

// minQuota is the smallest quota, in bytes. Beyond a quota, each connection of the peer may bring one
// message more, and the tables of an empty store take about 100 kB.
const minQuota = 1 << 20

// minCheckInterval is the shortest time between two checks of a link that rests.
const minCheckInterval = time.Minute

// limitFlags are the flags for the limits on the resources that one peer can use.
type limitFlags struct {
	connections int
	rate        int           // messages per second; 0: no limit
	quota       byteSize      // 0: no limit
	idle        time.Duration // 0: never
	check       time.Duration // of a link that rests; 0: never
}

func (l *limitFlags) add(c *cobra.Command) {
	l.quota = defaultQuota
	flags := c.Flags()
	flags.IntVar(&l.connections, "max-connections-per-peer", 10, "accept no more than `N` connections from one peer at once")
	flags.IntVar(&l.rate, "peer-rate", link.DefaultMaxRate, "accept no more than `N` messages a second from one peer; 0: no limit")
	flags.Var(&l.quota, "peer-quota", "`SIZE` that the messages from one peer may take in the embedded broker, as 500MB or 1GiB, before no more are accepted for the time being; 0: no limit")
	flags.DurationVar(&l.idle, "idle", 10*time.Minute, "the `TIME` without messages after which a connection is closed until there is something to send; 0: never")
	flags.DurationVar(&l.check, "check-interval", 24*time.Hour, "the longest `TIME` for which a link without a connection is not checked, by connecting to the peer for a moment; 0: never")
	fromEnv(flags, "max-connections-per-peer", "PEERLINK_MAX_CONNECTIONS_PER_PEER", maxConnectionsVariable)
	fromEnv(flags, "peer-rate", "PEERLINK_PEER_RATE")
	fromEnv(flags, "peer-quota", "PEERLINK_PEER_QUOTA")
	fromEnv(flags, "idle", "PEERLINK_IDLE")
	fromEnv(flags, "check-interval", "PEERLINK_CHECK_INTERVAL")
}

// set checks the limits, and sets them in cfg, except the quota, which is the embedded broker's.
func (l *limitFlags) set(cfg *link.Config, broker string) error {
	switch {
	case l.quota != defaultQuota && broker != embeddedBroker:
		return usagef("--peer-quota is for the embedded broker: in RabbitMQ the node's own queue has limits, see docs/security.md")
	case l.quota > 0 && l.quota < minQuota:
		return usagef("--peer-quota %v: expected %v or more, or 0", l.quota, byteSize(minQuota))
	case l.connections < 1:
		return usagef("--max-connections-per-peer %d: expected 1 or more", l.connections)
	case l.rate < 0:
		return usagef("--peer-rate %d: expected a number of messages, or 0", l.rate)
	case l.idle < 0:
		return usagef("--idle %v: expected a time like 10m, or 0", l.idle)
	case l.check < 0 || l.check > 0 && l.check < minCheckInterval:
		return usagef("--check-interval %v: expected %v or more, or 0", l.check, minCheckInterval)
	}
	cfg.MaxConnsPerPeer, cfg.MaxRate, cfg.IdleTimeout = l.connections, l.rate, l.idle
	cfg.CheckInterval = l.check
	if l.idle == 0 {
		cfg.IdleTimeout = -1
	}
	return nil
}

// byteSize is the value of a flag for a number of bytes with an optional unit.
type byteSize int64

// sizeUnits are the units of a byteSize. B is the last, because the names of all others end with
// it.
var sizeUnits = []struct {
	name  string
	bytes int64
}{
	{"KiB", 1 << 10}, {"MiB", 1 << 20}, {"GiB", 1 << 30}, {"TiB", 1 << 40},
	{"kB", 1e3}, {"MB", 1e6}, {"GB", 1e9}, {"TB", 1e12}, {"B", 1},
}

// Set parses a size: a whole number and a unit. The default unit is bytes.
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

// String returns the size with the largest unit for which the number is whole.
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

// Type returns the type shown in the help.
func (*byteSize) Type() string { return "SIZE" }
