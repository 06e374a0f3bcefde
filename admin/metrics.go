package admin

import (
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"peerlink/link"
)

// metrics writes all metrics in a format of Prometheus. The counters are those of the
// service, not of a Prometheus registry: each request collects their current values.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	registry := prometheus.NewRegistry()
	registry.MustRegister(&scrape{s.links(r.Context()), s.cfg.LogDropped, s.cfg.Applications})
	promhttp.HandlerFor(prometheus.Gatherers{registry, s.process}, promhttp.HandlerOpts{ErrorHandling: promhttp.ContinueOnError}).ServeHTTP(w, r)
}

// processMetrics returns the metrics of the process: memory, goroutines, file descriptors,
// processor time. On Linux, some of them are missing in a process that is not dumpable,
// which cannot read the files in /proc that contain them.
func processMetrics() prometheus.Gatherer {
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return registry
}

// scrape is the state of the service at the time of one request.
type scrape struct {
	links      Links
	logDropped func() uint64 // nil: unknown
	// applications returns the number of messages of applications, by result; nil: unknown.
	applications func() map[string]uint64
}

// Describe implements [prometheus.Collector].
func (*scrape) Describe(descs chan<- *prometheus.Desc) {
	for _, f := range families {
		descs <- f.desc
	}
}

// Collect implements [prometheus.Collector].
func (s *scrape) Collect(metrics chan<- prometheus.Metric) {
	e := emitter(metrics)
	e.service(&s.links)
	e.peers(&s.links)
	e.queues(&s.links)
	e.store(&s.links)
	if s.logDropped != nil {
		e.emit("peerlink_log_records_dropped_total", float64(s.logDropped()))
	}
	if s.applications != nil {
		for result, n := range s.applications() {
			e.emit("peerlink_application_messages_total", float64(n), result)
		}
	}
}

func (e emitter) service(l *Links) {
	e.emit("peerlink_info", 1, l.Version, l.ID, l.Type)
	e.emit("peerlink_ready", boolValue(l.Ready))
	e.emit("peerlink_broker_warnings", float64(l.brokerWarnings))
	for reason, n := range l.Rejected {
		e.emit("peerlink_connections_rejected_total", float64(n), reason)
	}
	e.certificates(l.Certificates, "")
}

func (e emitter) peers(l *Links) {
	states := map[string]int{"signed": 0, "registered": 0, "active": 0, "suspended": 0, "deactivated": 0, "unreadable": 0, "gone": 0}
	for _, p := range l.Peers {
		states[p.State]++
		for _, c := range []struct {
			name  string
			value uint64
		}{
			{"messages_sent", p.Counts.Sent},
			{"bytes_sent", p.Counts.SentBytes},
			{"messages_confirmed", p.Counts.Confirmed},
			{"messages_received", p.Counts.Received},
			{"bytes_received", p.Counts.ReceivedBytes},
			{"messages_stored", p.Counts.Stored},
			{"messages_refused", p.Counts.Refused},
			{"messages_refused_by_peer", p.Counts.RefusedByPeer},
			{"messages_set_aside", p.Counts.SetAside},
			{"connects", p.Counts.Connects},
			{"failures", p.Counts.Failures},
			{"bundle_fetches", p.Counts.Fetches},
			{"bundle_fetch_failures", p.Counts.FetchFailures},
		} {
			e.emit("peerlink_"+c.name+"_total", float64(c.value), p.ID)
		}
		held := 0
		for _, h := range p.Held {
			held += h.Messages
		}
		e.emit("peerlink_messages_held", float64(held), p.ID)
		e.emit("peerlink_link_state", 1, p.ID, "out", string(p.Out.Verdict))
		e.emit("peerlink_link_state", 1, p.ID, "in", string(p.In.Verdict))
		e.emitHistogram("peerlink_link_confirm_seconds", p.ConfirmHistogram, p.ID)
		e.emitHistogram("peerlink_link_handshake_seconds", p.HandshakeHistogram, p.ID)
		e.connections(p.Connections, p.ID)
		e.certificates(p.Certificates, p.ID)
	}
	for state, n := range states {
		e.emit("peerlink_peers", float64(n), state)
	}
}

func (e emitter) connections(list []link.Connection, peer string) {
	n := map[string]int{link.Sending: 0, link.Receiving: 0}
	for _, c := range list {
		n[c.Direction]++
	}
	for direction, n := range n {
		e.emit("peerlink_connections", float64(n), peer, direction)
	}
}

// certificates emits, for each role, when the first certificate in it expires: a peer may
// have several server certificates.
func (e emitter) certificates(list []link.Expiry, peer string) {
	seen := make(map[string]bool)
	for _, c := range list { // sorted by NotAfter
		if !seen[c.Role] {
			seen[c.Role] = true
			e.emit("peerlink_certificate_expiry_timestamp_seconds", float64(c.NotAfter.Unix()), peer, c.Role)
		}
	}
}

// peersOfQueues returns the IDs of the peers to which queues lead, by queue.
func peersOfQueues(l *Links) map[string]string {
	peers := make(map[string]string)
	for i := range l.Peers {
		for _, queue := range l.Peers[i].Queues {
			peers[queue] = l.Peers[i].ID
		}
	}
	return peers
}

// store emits what is known of the embedded broker's quotas and disk.
func (e emitter) store(l *Links) {
	if l.store == nil {
		return
	}
	for i := range l.Peers {
		id := l.Peers[i].ID
		e.emit("peerlink_unconsumed_bytes", float64(l.store.Unconsumed[id]), id)
	}
	for name, bytes := range map[string]int64{"peer_quota": l.store.PeerQuota, "store_min_free": l.store.MinFree} {
		if bytes > 0 {
			e.emit("peerlink_"+name+"_bytes", float64(bytes))
		}
	}
	e.emitHistogram("peerlink_store_commit_seconds", l.store.Commits)
	if l.store.FreeBytes >= 0 {
		e.emit("peerlink_store_free_bytes", float64(l.store.FreeBytes))
	}
}

func (e emitter) queues(l *Links) {
	peers := peersOfQueues(l)
	for _, q := range l.Queues {
		e.emit("peerlink_queue_messages", float64(q.Messages), q.Name, peers[q.Name])
		e.emit("peerlink_queue_set_aside_messages", float64(q.SetAside), q.Name, peers[q.Name])
		age := 0.0
		if q.Oldest != nil {
			age = max(0, l.At.Sub(*q.Oldest).Seconds())
		}
		e.emit("peerlink_queue_oldest_age_seconds", age, q.Name, peers[q.Name])
	}
	if l.StoreBytes > 0 {
		e.emit("peerlink_store_bytes", float64(l.StoreBytes))
	}
}

func boolValue(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
