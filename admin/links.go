package admin

import (
	"context"
	"slices"
	"time"

	"peerlink/broker/embedded"
	"peerlink/link"
)

// Links is the state of a service, as GET /links returns it in JSON. All times are in UTC: to decode one with
// another zone takes much more memory, of which [Client] has a limit.
type Links struct {
	Version string    `json:"version"`
	At      time.Time `json:"at"`
	// Ready reports whether the service can serve its peers, reachable or not; if not, Problems
	// has the reasons.
	Ready    bool     `json:"ready"`
	Problems []string `json:"troubles"`
	// Warnings are problems that an operator should solve although the service is ready.
	Warnings []string `json:"warnings,omitempty"`
	link.Status
	// Dashboard is the URL of the dashboard, at a port where messages can be changed with the token;
	// empty if there is no such port.
	Dashboard string `json:"dashboard,omitempty"`
	// Queues are those of the embedded broker. RabbitMQ has its own monitoring.
	Queues []Queue `json:"queues"`
	// StoreBytes is the size of the embedded broker's files.
	StoreBytes int64 `json:"store_bytes,omitempty"`

	brokerWarnings int // how many of Warnings are of the broker

	store *embedded.Stats // nil without the embedded broker, or if it can not be read
}

// Queue is a queue or an inbox of the embedded broker.
type Queue struct {
	Name     string     `json:"name"`
	Messages int64      `json:"messages"`         // in it now
	Oldest   *time.Time `json:"oldest,omitempty"` // arrival of the oldest of them
	SetAside int64      `json:"set_aside"`        // number of dead letters
	Total    uint64     `json:"total"`            // number of messages ever stored in it
}

// links collects the state of all parts of the service.
func (s *Server) links(ctx context.Context) Links {
	l := Links{Version: s.cfg.Version, At: time.Now().UTC(), Status: s.cfg.Status().UTC(), Problems: []string{}, Queues: []Queue{}}
	if l.HealthError != "" {
		l.Problems = append(l.Problems, l.HealthError)
	}
	if err := s.cfg.BrokerHealth(); err != nil {
		l.Problems = append(l.Problems, err.Error())
	}
	if s.cfg.BrokerWarnings != nil {
		l.Warnings = s.cfg.BrokerWarnings()
	}
	l.brokerWarnings = len(l.Warnings)
	for i := range l.Peers {
		for _, h := range l.Peers[i].Held {
			l.Warnings = append(l.Warnings, h.String())
		}
	}
	if err := s.stalled(); err != nil {
		l.Problems = append(l.Problems, err.Error())
	}
	if s.cfg.Queues != nil {
		stats, err := s.cfg.Queues(ctx)
		if err != nil {
			l.Problems = append(l.Problems, err.Error())
		} else {
			l.store = &stats
		}
		l.Queues, l.StoreBytes = queues(stats), stats.FileBytes
	}
	l.Ready, l.Dashboard = len(l.Problems) == 0, s.dashboard
	return l
}

func queues(stats embedded.Stats) []Queue {
	list := []Queue{}
	for _, q := range stats.Queues {
		row := Queue{Name: q.Name, Messages: q.Depth, SetAside: q.SetAside, Total: q.Total}
		if !q.Oldest.IsZero() {
			oldest := q.Oldest.UTC()
			row.Oldest = &oldest
		}
		list = append(list, row)
	}
	return list
}

// QueueOf returns the sums over the queues of a peer in the embedded broker, and the oldest
// message's arrival.
func (l *Links) QueueOf(p link.PeerStatus) (sum Queue) {
	for _, q := range l.Queues {
		if !slices.Contains(p.Queues, q.Name) {
			continue
		}
		sum.Messages += q.Messages
		sum.SetAside += q.SetAside
		sum.Total += q.Total
		if q.Oldest != nil && (sum.Oldest == nil || q.Oldest.Before(*sum.Oldest)) {
			sum.Oldest = q.Oldest
		}
	}
	return sum
}

// peer returns the status of the peer with this ID, nil if there is no such peer.
func (l *Links) peer(id string) *link.PeerStatus {
	if i := slices.IndexFunc(l.Peers, func(p link.PeerStatus) bool { return p.ID == id }); i >= 0 {
		return &l.Peers[i]
	}
	return nil
}
