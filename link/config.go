package link

import (
	"log/slog"
	"net"
	"net/netip"
	"time"

	"peerlink/broker"
	"peerlink/node"
	"peerlink/stomp"
)

// Config says what a [Service] needs. The first group must be set. Anywhere else
// a zero value means the default that stands with the field.
type Config struct {
	Dir         *node.Dir
	Broker      broker.Broker
	Certificate *Certificate // what this node shows to its peers; not for Drain
	Listener    net.Listener // where peers connect, closed by the Service; not for Send and Drain

	Log     *slog.Logger     // discarded if nil
	Serving func()           // called once, when the links are being kept; may be nil
	Recheck <-chan struct{}  // with each value, everything is looked at again now; may be nil
	Now     func() time.Time // the time of day, by which certificates and timestamps are judged; time.Now

	// The queues that lead to a peer.

	// AllQueues makes the service use as many queues for a peer as the node's
	// directory says, each with a connection of its own. Otherwise the first
	// carries everything.
	AllQueues    bool
	QueuePattern QueuePattern // how the queues are called; DefaultQueuePattern

	// What is looked at in the node's directory, and elsewhere.

	PollInterval time.Duration // between two looks at the node's directory; 1 s
	Follow       Follow        // peers that move

	// All connections.

	HeartBeat        stomp.HeartBeat // what to offer and to ask for; the defaults of stomp
	HandshakeTimeout time.Duration   // for a TLS handshake; 5 s
	ConnectTimeout   time.Duration   // for TCP, and for CONNECT; 10 s
	DrainTimeout     time.Duration   // for confirming what is stored when a connection is to end; 5 s

	// Connections that this node makes, to send.

	Window      int           // messages sent and not confirmed, per connection; 1,000
	MaxDialRate int           // attempts to reach peers begun in a second; 100
	IdleTimeout time.Duration // after which a connection with nothing to send rests; 10 min, negative: never
	// The pauses between attempts to reach a peer grow from about RetryMin to
	// about RetryMax. Each is random, up to twice as long, so that a peer which is
	// there again is noticed within a minute, whatever it was that failed.
	RetryMin, RetryMax time.Duration // 250 ms and 30 s

	// Connections that this node accepts.

	// ProxyFrom are the addresses of load balancers that send a PROXY header
	// (version 1 or 2) ahead of each connection. It is required from them and
	// refused from others. None.
	ProxyFrom []netip.Prefix
	// How many there may be before the handshake. The defaults are smaller where
	// the system lets the process have few open files.
	MaxPendingConns  int // connections that have not sent a ClientHello yet; 4,096
	MaxHandshakes    int // going on at once, a quarter of them kept for sources that have few, and four times as many wait; 256
	MaxHandshakeRate int // begun in a second; 200
	MaxConnsPerPeer  int // accepted from one peer at once; 10
	// ConnTimeSlice is how old a connection must be to give way to another one of its
	// peer, which has as many as it may have. 30 s. It also holds for the connections
	// to a peer that takes fewer than there are queues.
	ConnTimeSlice time.Duration
	MaxRate       int // messages taken from one peer in a second; no limit

	// Brokers that several services of the node share.

	// AcquireSpread is how long a service that is alone takes until it sends from
	// all queues. Of several that start together, each gets about as many queues
	// in that time. 0 means at once.
	AcquireSpread   time.Duration
	StandbyInterval time.Duration // about how long between two looks at a queue that another process uses; 3 s

	// Peers that have been deactivated.

	DrainedAfter time.Duration // how long a queue must be empty to count as drained; 1 min
	DrainPause   time.Duration // about how long until the next look at a queue that is drained; 15 min
}

// DefaultMaxRate is [Config.MaxRate] of services whose operator has not said
// otherwise: more than any peer of today has to say, and a part of what a small
// machine can take. Without a limit, a peer that floods the node would leave the
// others no more than it happens not to use.
const DefaultMaxRate = 10_000

func (c *Config) setDefaults() {
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	setDefault(&c.QueuePattern, DefaultQueuePattern)
	setDefault(&c.PollInterval, time.Second)
	c.Follow.setDefaults()
	setDefault(&c.HandshakeTimeout, 5*time.Second)
	setDefault(&c.ConnectTimeout, 10*time.Second)
	setDefault(&c.DrainTimeout, 5*time.Second)
	setDefault(&c.Window, 1000)
	setDefault(&c.MaxDialRate, 100)
	setDefault(&c.IdleTimeout, 10*time.Minute)
	setDefault(&c.RetryMin, 250*time.Millisecond)
	setDefault(&c.RetryMax, 30*time.Second)
	pending, handshakes := strangersWithin(openFiles())
	setDefault(&c.MaxPendingConns, pending)
	setDefault(&c.MaxHandshakes, handshakes)
	setDefault(&c.MaxHandshakeRate, 200)
	setDefault(&c.MaxConnsPerPeer, 10)
	setDefault(&c.ConnTimeSlice, 30*time.Second)
	setDefault(&c.StandbyInterval, 3*time.Second)
	setDefault(&c.DrainedAfter, time.Minute)
	setDefault(&c.DrainPause, 15*time.Minute)
}

func setDefault[T comparable](v *T, def T) {
	var zero T
	if *v == zero {
		*v = def
	}
}
