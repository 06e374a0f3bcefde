package link

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"peerlink/broker"
	"peerlink/internal/latency"
	"peerlink/node"
)

// Status describes the links of a [Service] at one moment. Programs read its JSON form:
// the names in it stay, new ones may be added.
type Status struct {
	ID    string    `json:"id"`    // the node's own
	Type  string    `json:"type"`  // "accounting-authority", ...
	Since time.Time `json:"since"` // when the service was made
	// Listen is the address where peers connect; empty before the service runs.
	Listen string `json:"listen,omitempty"`
	// HealthError is the error of [Service.Health]; empty if there is none.
	HealthError string `json:"-"`
	// Rejected counts, by reason, the connections that ended before they were
	// registered with a peer.
	Rejected     map[string]uint64 `json:"rejected"`
	Certificates []Expiry          `json:"certificates"` // the node's own, the first to expire first
	Peers        []PeerStatus      `json:"peers"`        // by ID
}

// UTC returns a copy of the status with all times in UTC. The slices and pointers of s are not written to.
func (s Status) UTC() Status {
	s.Since = s.Since.UTC()
	s.Certificates = copyOf(s.Certificates, Expiry.utc)
	s.Peers = copyOf(s.Peers, PeerStatus.utc)
	return s
}

// copyOf returns what convert makes of the elements of list; nil if list is nil.
func copyOf[E any](list []E, convert func(E) E) []E {
	list = slices.Clone(list)
	for i, e := range list {
		list[i] = convert(e)
	}
	return list
}

// utcOrNil returns the time in UTC, or nil if t is nil.
func utcOrNil(t *time.Time) *time.Time {
	if t == nil {
		return nil
	}
	utc := t.UTC()
	return &utc
}

// PeerStatus describes the link with one peer.
type PeerStatus struct {
	ID   string `json:"id"`
	Name string `json:"name,omitempty"` // given to the peer by the node's owner; see [node.Dir.SetPeerName]
	Type string `json:"type,omitempty"` // empty while the peer's files cannot be read
	// State is the result of [node.Peer.State], "unreadable" if the peer's files could
	// never be read, or "gone" if they do not exist any more.
	State       string   `json:"state"`
	Deactivated string   `json:"deactivated,omitempty"` // the date
	Servers     []string `json:"servers"`               // the peer's addresses, from its stomp.toml
	InfoBundle  string   `json:"info_bundle,omitempty"` // the date of the info-bundle with these addresses
	// Queues are the peer's queues in the broker, whatever its state is: those of a suspended or deactivated
	// peer may have messages. They do not exist if no link with the peer was ever active.
	Queues      []string     `json:"queues"`
	Connections []Connection `json:"connections"` // those that carry messages, the oldest first
	Counts      Counts       `json:"counts"`
	// LastError is the last error in a direction that has not worked since. It may quote what
	// the peer has written.
	LastError    string     `json:"last_error,omitempty"`
	LastErrorAt  *time.Time `json:"last_error_at,omitempty"`
	Certificates []Expiry   `json:"certificates"` // those that the link needs, the first to expire first
	// Held has an element for each queue with messages that cannot be sent, and that cannot be made dead
	// letters either, or only slowly.
	Held []Held `json:"held,omitempty"`

	Out LinkState `json:"out"` // this node sends to the peer
	In  LinkState `json:"in"`  // the peer sends to this node
	// LastContact is when the peer last sent anything on a connection, or completed a TLS
	// handshake, in either direction; nil if it has not since the service started.
	LastContact *time.Time `json:"last_contact,omitempty"`
	// Confirm is how long the peer takes to confirm messages: from sending a message to the
	// arrival of its receipt.
	Confirm          latency.Timing    `json:"confirm"`
	ConfirmHistogram latency.Histogram `json:"-"`
	// HandshakeHistogram is how long successful TLS handshakes with the peer take, in both
	// directions.
	HandshakeHistogram latency.Histogram `json:"-"`
}

func (p PeerStatus) utc() PeerStatus {
	p.Connections = copyOf(p.Connections, Connection.utc)
	p.Certificates = copyOf(p.Certificates, Expiry.utc)
	p.Held = copyOf(p.Held, Held.utc)
	p.Out, p.In = p.Out.utc(), p.In.utc()
	p.LastErrorAt, p.LastContact = utcOrNil(p.LastErrorAt), utcOrNil(p.LastContact)
	return p
}

// Held describes the messages of a queue that cannot be sent, and that cannot be made dead letters
// either, or only slowly: they stay in the queue, and making them dead letters is tried again.
type Held struct {
	Queue    string    `json:"queue"`
	Messages int       `json:"messages"`
	Since    time.Time `json:"since"`  // when the oldest of them began to wait
	Reason   string    `json:"reason"` // why they cannot be made dead letters; "" if that only takes long
	// Stopped reports whether the messages are so many that nothing is sent from the queue.
	Stopped bool `json:"stopped"`
}

func (h Held) utc() Held {
	h.Since = h.Since.UTC()
	return h
}

// String describes the messages in a sentence without a period.
func (h Held) String() string {
	others := "the others are sent"
	if h.Stopped {
		others = "they are so many that NOTHING is sent from the queue"
	}
	if h.Reason == "" {
		return fmt.Sprintf("queue %s: %d messages can not be sent, and wait to be set aside; %s: %s", h.Queue, h.Messages, others, slowReason)
	}
	return fmt.Sprintf("queue %s: %d messages can be neither sent nor set aside, and stay in it; %s: %s", h.Queue, h.Messages, others, h.Reason)
}

// Remedy returns what an operator can do about the messages.
func (h Held) Remedy() string { return heldRemedy(h.Reason) }

// Severity returns the severity of the worse direction of the link, which is the smaller value.
func (p *PeerStatus) Severity() Severity {
	return min(p.Out.Verdict.Severity(), p.In.Verdict.Severity())
}

// Connection is a connection that carries messages, in one direction.
type Connection struct {
	Direction string    `json:"direction"`       // Sending or Receiving
	Remote    string    `json:"remote"`          // the address of the server that was dialed, or of the client
	Queue     string    `json:"queue,omitempty"` // of a sending connection
	Since     time.Time `json:"since"`
}

func (c Connection) utc() Connection {
	c.Since = c.Since.UTC()
	return c
}

// The directions of a [Connection].
const (
	Sending   = "sending"
	Receiving = "receiving"
)

// Counts are counters since the service started. A message that is sent or received again is
// counted again.
type Counts struct {
	Sent          uint64 `json:"sent"`            // messages
	SentBytes     uint64 `json:"sent_bytes"`      // of their bodies
	Confirmed     uint64 `json:"confirmed"`       // messages sent that the peer has confirmed
	Received      uint64 `json:"received"`        // messages, valid or not
	ReceivedBytes uint64 `json:"received_bytes"`  // of their bodies
	Stored        uint64 `json:"stored"`          // messages received that this node's broker has stored
	Refused       uint64 `json:"refused"`         // messages received that were refused as invalid
	RefusedByPeer uint64 `json:"refused_by_peer"` // messages sent that the peer refused
	SetAside      uint64 `json:"set_aside"`       // messages made dead letters because they cannot be sent
	Connects      uint64 `json:"connects"`        // connections that began to carry messages
	Failures      uint64 `json:"failures"`        // failed attempts to connect, and connections for sending that failed
	Fetches       uint64 `json:"fetches"`         // fetches of the info-bundles that the peer publishes
	FetchFailures uint64 `json:"fetch_failures"`  // fetches with an error
}

// Status returns the status of all links.
func (s *Service) Status() Status {
	id := s.cfg.Dir.Identity()
	now := s.cfg.Now()
	st := Status{
		ID: id.ID, Type: id.Type.String(), Since: s.started,
		Rejected:     s.acceptor.rejected.all(),
		Certificates: expiries(s.ownCertificates(), now),
		Peers:        []PeerStatus{},
	}
	if addr := s.listen.Load(); addr != nil {
		st.Listen = (*addr).String()
	}
	if err := s.Health(); err != nil {
		st.HealthError = err.Error()
	}
	for _, p := range s.peers.all() {
		st.Peers = append(st.Peers, p.status(s.shared, now))
	}
	slices.SortFunc(st.Peers, func(a, b PeerStatus) int { return cmp.Compare(a.ID, b.ID) })
	return st
}

// errNotServing is the error of [Service.Health] until the first reconciliation is complete, and
// from the moment when [Service.Run] begins to stop.
var errNotServing = errors.New("the service is starting or stopping")

// Health returns an error if the service does not serve all peers as it should: if it is
// starting or stopping, cannot read the node's directory, has no server certificate that is
// valid at present, or has not been able to use the queues of a peer in the broker for 10
// times [Config.PollInterval]. Faults of single peers are in [Service.Status].
func (s *Service) Health() error {
	if err := s.reconciler.health.Load(); err != nil {
		return *err
	}
	leaf, now := s.cfg.Certificate.serverChain().Leaf, s.cfg.Now()
	switch {
	case now.After(leaf.NotAfter):
		return fmt.Errorf("the server certificate expired at %s: no peer accepts it; issue another one, and check the clock", leaf.NotAfter.UTC().Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("the server certificate is not valid before %s: no peer accepts it until then; check the clock", leaf.NotBefore.UTC().Format(time.RFC3339))
	}
	return s.brokerProblems.lasting(maxBrokerProblem * s.cfg.PollInterval)
}

// maxBrokerProblem is the number of times [Config.PollInterval] for which a queue may be unusable
// before [Service.Health] returns an error.
const maxBrokerProblem = 10

// maxSilence is the number of times [Config.PollInterval] without a check of the node's directory
// after which [Service.Stalled] returns an error.
const maxSilence = 30

// Stalled returns an error if the service, though it is not stopping, has not checked
// the node's directory for 30 times [Config.PollInterval]. A service without checks would
// not notice the deactivation of a peer. A check that fails counts as a check, because
// the directory may be missing for a while.
func (s *Service) Stalled() error {
	if d := s.reconciler.pulse.Silence(); d > maxSilence*s.cfg.PollInterval {
		return fmt.Errorf("the node's directory has not been checked for %v: reading it, or another step of the check, hangs", d.Round(time.Second))
	}
	return nil
}

// setHealth sets the error that [Service.Health] returns before it checks anything else. With nil,
// the result depends on the other checks.
func (r *reconciler) setHealth(err error) {
	if err == nil {
		r.health.Store(nil)
		return
	}
	r.health.Store(&err)
}

func (p *peer) status(s *shared, now time.Time) PeerStatus {
	st := PeerStatus{
		ID: p.id, State: "unreadable",
		Servers: []string{}, Queues: append([]string{}, p.queues(s)...), Connections: []Connection{},
		Counts: p.stats.counts(), Certificates: expiries(p.certificates(), now),
	}
	state, np := p.state.Load(), p.lastContent.Load()
	if state != nil {
		np = state.Peer
	}
	if np != nil {
		st.Name = np.Name
		st.Type, st.State, st.Deactivated = np.Identity.Type.String(), np.State(), np.Deactivated
		st.Servers = append(st.Servers, servers(np)...)
		st.InfoBundle = np.UpdatedAt
	}
	if p.gone.Load() {
		st.State = "gone"
	}
	wall := time.Now() // events are recorded by this clock, not by that for certificates
	st.Out, st.In = p.linkStates(s, wall)
	st.Held = p.heldMessages(wall)
	if e := p.lastError(st.Out, st.In, wall); !e.at.IsZero() {
		st.LastError, st.LastErrorAt = e.text, &e.at
	}
	t := &p.stats
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		st.Connections = append(st.Connections, c.Connection)
	}
	slices.SortFunc(st.Connections, func(a, b Connection) int { return a.Since.Compare(b.Since) })
	if last := t.lastContact(); !last.IsZero() {
		st.LastContact = &last
	}
	st.Confirm, st.ConfirmHistogram, st.HandshakeHistogram = t.confirmations.Timing(wall), t.confirmations.Histogram(), t.handshakes.Histogram()
	return st
}

// queues returns the names of the peer's queues. Without an active link, they result from what was read last of the
// peer's directory; if it could never be read, only the first queue is known.
func (p *peer) queues(s *shared) []string {
	if state := p.state.Load(); state != nil {
		return state.binding.Queues
	}
	count := 1
	if np := p.lastContent.Load(); np != nil && s.cfg.AllQueues {
		count = np.Queues
	}
	if s.receiveOnly {
		count = 0
	}
	return s.cfg.QueuePattern.Names(p.id, count)
}

// heldMessages returns the messages that wait to become dead letters, by queue, if an operator has to
// know of them.
func (p *peer) heldMessages(now time.Time) (list []Held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, queue := range slices.Sorted(maps.Keys(p.out)) {
		if h := p.out[queue].heldNow(now); h.count > 0 {
			list = append(list, Held{Queue: queue, Messages: h.count, Since: h.since, Reason: h.reason, Stopped: h.full})
		}
	}
	return list
}

// servers returns the addresses in a peer's stomp.toml, each once.
func servers(p *node.Peer) []string {
	if p.Stomp == nil {
		return nil
	}
	list := slices.Clone(p.Stomp.Servers)
	slices.Sort(list)
	return slices.Compact(list)
}

// brokerProblems are the objects in the broker that cannot be used at present, and why: the
// queues, by name, whose last use has failed, until the next check of the queue succeeds; their
// consumers that cannot be opened; and the peers, by node ID, whose queues cannot be bound.
type brokerProblems struct {
	mu       sync.Mutex
	byObject map[string]brokerProblem
}

type brokerProblem struct {
	err   error
	since time.Time
}

// set records that an object cannot be used, if err is a [*brokerError] other than
// [broker.ErrInUse]. After any other error, or nil, the object counts as usable: what a peer
// does must not determine the node's health.
func (t *brokerProblems) set(object string, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if !errors.As(err, new(*brokerError)) || errors.Is(err, broker.ErrInUse) {
		delete(t.byObject, object)
		return
	}
	if t.byObject == nil {
		t.byObject = make(map[string]brokerProblem)
	}
	since := time.Now()
	if earlier, ok := t.byObject[object]; ok {
		since = earlier.since
	}
	t.byObject[object] = brokerProblem{err, since}
}

// lasting returns the error of the object that has been unusable for the longest time, with the
// number of all other unusable objects. It returns nil if no object has been unusable for longer
// than d: a broker that is only being restarted is not reported.
func (t *brokerProblems) lasting(d time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	oldest := brokerProblem{since: time.Now().Add(-d)}
	for _, b := range t.byObject {
		if b.since.Before(oldest.since) {
			oldest = b
		}
	}
	switch n := len(t.byObject); {
	case oldest.err == nil:
		return nil
	case n > 1:
		return fmt.Errorf("%w (and %d more)", oldest.err, n-1)
	}
	return oldest.err
}
