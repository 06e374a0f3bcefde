package link

import (
	"log/slog"
	"net/netip"
	"time"

	"peerlink/broker"
	"peerlink/internal/outproxy"
	"peerlink/internal/pendingconns"
	"peerlink/node"
	"peerlink/stomp"
)

// Config holds the parameters of a [Service], [QueueSender] or [QueueDrainer]. The first
// group must be set. For all other fields, the zero value means the default given in the
// field's comment.
type Config struct {
	Dir         *node.Dir
	Broker      broker.Broker
	Certificate *Certificate // sent to peers in handshakes; nil for a [QueueDrainer], which makes no connections

	Log     *slog.Logger     // nothing is logged if nil
	Serving func()           // called once, when the service has started to serve; may be nil
	Outbox  *Outbox          // is kept up to date with the peers; may be nil
	Recheck <-chan struct{}  // each value makes the service check everything immediately; may be nil
	Now     func() time.Time // the clock for certificates and timestamps; time.Now

	// The queues that lead to a peer.

	// AllQueues makes the service use as many queues for a peer as the node's directory
	// specifies, each with its own connection. Otherwise the first queue carries all
	// messages.
	AllQueues    bool
	QueuePattern QueuePattern // the pattern of the names of queues; DefaultQueuePattern
	// FormerQueuePatterns are patterns of the names of queues that were used before. What is
	// left in these queues is sent, too, if AllQueues is set.
	FormerQueuePatterns []QueuePattern
	// KeepQueuePatterns makes a [Service] record QueuePattern and FormerQueuePatterns in the
	// node's directory again if the record there changes ([node.Dir.RecordQueuePatterns]).
	KeepQueuePatterns bool

	// Polling.

	PollInterval time.Duration // interval between two checks of the node's directory; 1 s
	Follow       Follow        // how peers that move are found

	// All connections.

	HeartBeat        stomp.HeartBeat // what is offered and requested; the defaults of stomp
	HandshakeTimeout time.Duration   // for a TLS handshake and, before that, for the ClientHello of a client; 5 s each
	ConnectTimeout   time.Duration   // for TCP, and then for the STOMP handshake; 10 s each
	DrainTimeout     time.Duration   // how long a connection that is being closed waits for outstanding confirmations; 5 s

	// Outgoing connections, on which this node sends.

	// Proxy is the proxy through which all connections to peers are made, and which resolves the names
	// of their servers; nil for none. ConnectTimeout includes what the proxy needs. Info-bundles are
	// fetched without it (see [Follow]).
	Proxy  *outproxy.Proxy
	Window int // unconfirmed messages per connection; 1,000
	// UnconfirmedAfter is how long a peer may confirm nothing before the link counts as
	// faulty; 30 s.
	UnconfirmedAfter time.Duration
	// CheckInterval is the longest time for which a link rests without a check: a connection
	// to the peer, on which nothing is sent. The default, 0, means never.
	CheckInterval time.Duration
	MaxDialRate   int           // attempts per second to connect to peers; 100
	IdleTimeout   time.Duration // time without messages after which a connection is closed until there is one to send; 10 min, negative: never
	// The pauses between attempts to connect to a peer grow from about RetryMin to
	// about RetryMax. Each is random, between 0 and twice that, so that a peer that is
	// reachable again is connected within a minute, whatever the failure was.
	RetryMin, RetryMax time.Duration // 250 ms and 30 s

	// Incoming connections, on which this node receives.

	// ProxyFrom are the addresses of load balancers that send a PROXY header (version 1
	// or 2) at the start of each connection. The header is required from these
	// addresses and refused from others. The default is none.
	ProxyFrom []netip.Prefix
	// Bounds for connections before the end of the handshake. The defaults are smaller
	// if the limit of open files is low.
	MaxPendingConns int // connections without a complete ClientHello; 4,096
	// MaxHandshakes is the number of concurrent handshakes; 256. A quarter of them is
	// reserved for sources that have few handshakes. Four times as many connections, 1,024
	// at most, may wait for their handshake.
	MaxHandshakes    int
	MaxHandshakeRate int // handshakes begun per second; 200
	MaxConnsPerPeer  int // concurrent connections from one peer; 10
	// ConnTimeSlice is the age from which a connection of a peer that has
	// MaxConnsPerPeer connections may be ended in favour of a new connection from the
	// same peer. 30 s. It also applies to outgoing connections to a peer that accepts
	// fewer connections than there are queues.
	ConnTimeSlice time.Duration
	MaxRate       int // messages accepted per second from one peer; no limit

	// Brokers that several services of the node share.

	// AcquireSpread is the time in which a service that is alone acquires all queues.
	// Of several services that start together, each gets about as many queues in that
	// time. 0 means immediately.
	AcquireSpread   time.Duration
	StandbyInterval time.Duration // about how long between two attempts to acquire a queue that another process uses; 3 s

	// Peers that have been deactivated.

	DrainedAfter time.Duration // how long a queue must be empty to count as drained; 1 min
	DrainPause   time.Duration // about how long between two checks of a drained queue; 15 min
}

// DefaultMaxRate is for programs whose operator has set no [Config.MaxRate]; the field
// itself has no default. It is more than any peer sends today, and a part of the capacity
// of a small machine.
// Without a limit, a peer that floods the node would leave to the others only the
// capacity that it does not use itself.
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
	setDefault(&c.UnconfirmedAfter, 30*time.Second)
	setDefault(&c.MaxDialRate, 100)
	setDefault(&c.IdleTimeout, 10*time.Minute)
	setDefault(&c.RetryMin, 250*time.Millisecond)
	setDefault(&c.RetryMax, 30*time.Second)
	pending, handshakes, _ := connLimits(pendingconns.OpenFiles())
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
