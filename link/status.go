package link

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"time"

	"peerlink/node"
)

// Status is what a [Service] knows about its links at one moment. In JSON, it
// is what the program shows to machines: names stay, new ones may come.
type Status struct {
	ID    string    `json:"id"`   // the node's own
	Type  string    `json:"type"` // "accounting-authority", ...
	Since time.Time `json:"since"`
	// Trouble says why the service does not serve as it should; empty if it does.
	Trouble string `json:"-"`
	// Rejected counts, by reason, the connections that ended before they belonged
	// to a peer.
	Rejected     map[string]uint64 `json:"rejected"`
	Certificates []Expiry          `json:"certificates"` // the node's own, the first to end first
	Peers        []PeerStatus      `json:"peers"`        // by ID
}

// PeerStatus is what is known about the link with one peer.
type PeerStatus struct {
	ID   string `json:"id"`
	Type string `json:"type,omitempty"` // empty while the peer's files can not be read
	// State is that of [node.Peer.State], "unreadable" if the peer's files never
	// could be read, or "gone" if they are not there any more.
	State        string       `json:"state"`
	Deactivated  string       `json:"deactivated,omitempty"` // the date
	Servers      []string     `json:"servers"`               // where it is dialed, as the peer has said
	InfoBundle   string       `json:"info_bundle,omitempty"` // the date of the info-bundle in which it has
	Queues       []string     `json:"queues"`                // the broker's, that lead to the peer
	Connections  []Connection `json:"connections"`           // those that carry messages, the oldest first
	Counts       Counts       `json:"counts"`
	LastError    string       `json:"last_error,omitempty"` // it may quote what the peer has written
	LastErrorAt  *time.Time   `json:"last_error_at,omitempty"`
	Certificates []Expiry     `json:"certificates"` // those that the link needs, the first to end first
}

// Connection is a connection that carries messages, in one direction.
type Connection struct {
	Direction string    `json:"direction"`       // Sending or Receiving
	Remote    string    `json:"remote"`          // the server that was dialed, or who has dialed
	Queue     string    `json:"queue,omitempty"` // that is being sent from
	Since     time.Time `json:"since"`
}

// The directions of a [Connection].
const (
	Sending   = "sending"
	Receiving = "receiving"
)

// Counts count since the service started. A message that is repeated counts
// again.
type Counts struct {
	Sent          uint64 `json:"sent"` // messages
	SentBytes     uint64 `json:"sent_bytes"`
	Confirmed     uint64 `json:"confirmed"` // of them, by the peer
	Received      uint64 `json:"received"`
	ReceivedBytes uint64 `json:"received_bytes"`
	Stored        uint64 `json:"stored"`          // of them, by the own broker
	Refused       uint64 `json:"refused"`         // of them, as invalid
	RefusedByPeer uint64 `json:"refused_by_peer"` // messages sent that the peer refused
	SetAside      uint64 `json:"set_aside"`       // messages taken out of the queue that can not be sent
	Connects      uint64 `json:"connects"`        // connections that came to carry messages
	Failures      uint64 `json:"failures"`        // attempts and connections to send that failed
	Fetches       uint64 `json:"fetches"`         // looks for a newer info-bundle where the peer publishes it
	FetchFailures uint64 `json:"fetch_failures"`  // of them, those in which something went wrong
}

// Status describes all links.
func (s *Service) Status() Status {
	id := s.cfg.Dir.Identity()
	now := s.cfg.Now()
	st := Status{
		ID: id.ID, Type: id.Type.String(), Since: s.started,
		Rejected:     s.rejected.all(),
		Certificates: expiries(s.ownCertificates(), now),
		Peers:        []PeerStatus{},
	}
	if err := s.Health(); err != nil {
		st.Trouble = err.Error()
	}
	for _, p := range s.peers.all() {
		st.Peers = append(st.Peers, p.status(now))
	}
	slices.SortFunc(st.Peers, func(a, b PeerStatus) int { return cmp.Compare(a.ID, b.ID) })
	return st
}

// errNotServing is the trouble before the first scan and after the end of ctx.
var errNotServing = errors.New("the service is starting or stopping")

// Health says why the service does not serve all peers as it should: it is
// starting or stopping, or can not read the node's directory. Troubles with
// single peers are in [Service.Status].
func (s *Service) Health() error {
	if err := s.health.Load(); err != nil {
		return *err
	}
	return nil
}

// maxSilence is after how many intervals between two looks at the node's directory
// [Service.Stalled] reports that there are none.
const maxSilence = 30

// Stalled returns an error if the service, though it is not stopping, has not looked
// at the node's directory for [Config.PollInterval] times maxSilence. Failing
// is no stall: the directory may be missing for a while. But a service that does not
// even look would not notice a peer that is deactivated.
func (s *Service) Stalled() error {
	if d := s.reconcilePulse.Silence(); d > maxSilence*s.cfg.PollInterval {
		return fmt.Errorf("the node's directory has not been looked at for %v, something there does not answer", d.Round(time.Second))
	}
	return nil
}

// setHealth says what [Service.Health] returns from now on.
func (s *Service) setHealth(err error) {
	if err == nil {
		s.health.Store(nil)
		return
	}
	s.health.Store(&err)
}

func (p *peer) status(now time.Time) PeerStatus {
	st := PeerStatus{
		ID: p.id, State: "unreadable",
		Servers: []string{}, Queues: []string{}, Connections: []Connection{},
		Counts: p.stats.counts(), Certificates: expiries(p.certificates(), now),
	}
	state, np := p.state.Load(), p.seen.Load()
	if state != nil {
		np = state.Peer
		st.Queues = append(st.Queues, state.queue.Queues...)
	}
	if np != nil {
		st.Type, st.State, st.Deactivated = np.Identity.Type.String(), np.State(), np.Deactivated
		st.Servers = append(st.Servers, servers(np)...)
		st.InfoBundle = np.UpdatedAt
	}
	if p.gone.Load() {
		st.State = "gone"
	}
	t := &p.stats
	t.mu.Lock()
	defer t.mu.Unlock()
	for c := range t.conns {
		st.Connections = append(st.Connections, c.Connection)
	}
	slices.SortFunc(st.Connections, func(a, b Connection) int { return a.Since.Compare(b.Since) })
	if !t.failedAt.IsZero() {
		at := t.failedAt
		st.LastError, st.LastErrorAt = t.lastError, &at
	}
	return st
}

// servers are the addresses in a peer's manifest, each once.
func servers(p *node.Peer) []string {
	if p.Stomp == nil {
		return nil
	}
	list := slices.Clone(p.Stomp.Servers)
	slices.Sort(list)
	return slices.Compact(list)
}
