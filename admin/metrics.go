package admin

import (
	"net/http"
	"runtime"
	"strings"

	"peerlink/link"
)

// metrics writes all metrics in the text format of Prometheus. The values are counted
// elsewhere: a new set is created for each request.
func (s *Server) metrics(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	l := s.links(r.Context())
	e := make(exposition)
	e.service(&l)
	e.peers(&l)
	e.queues(&l)
	if s.cfg.LogDropped != nil {
		e.counter("peerlink_log_records_dropped_total", s.cfg.LogDropped())
	}
	e.process()
	e.write(w)
}

// label returns one label. The value may be any text.
func label(name, value string) string {
	return name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`).Replace(value) + `"`
}

func series(name string, labels []string) string {
	if len(labels) == 0 {
		return name
	}
	return name + "{" + strings.Join(labels, ",") + "}"
}

func (e exposition) service(l *Links) {
	e.gauge("peerlink_info", 1, label("version", l.Version), label("node", l.ID), label("type", l.Type))
	e.gauge("peerlink_ready", truth(l.Ready))
	e.gauge("peerlink_broker_warnings", float64(len(l.Warnings)))
	for reason, n := range l.Rejected {
		e.counter("peerlink_connections_rejected_total", n, label("reason", reason))
	}
	e.certificates(l.Certificates, label("peer", ""))
}

func (e exposition) peers(l *Links) {
	states := map[string]int{"signed": 0, "registered": 0, "active": 0, "deactivated": 0, "unreadable": 0, "gone": 0}
	for _, p := range l.Peers {
		states[p.State]++
		peer := label("peer", p.ID)
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
			e.counter("peerlink_"+c.name+"_total", c.value, peer)
		}
		e.connections(p.Connections, peer)
		e.certificates(p.Certificates, peer)
	}
	for state, n := range states {
		e.gauge("peerlink_peers", float64(n), label("state", state))
	}
}

func (e exposition) connections(list []link.Connection, peer string) {
	n := map[string]int{link.Sending: 0, link.Receiving: 0}
	for _, c := range list {
		n[c.Direction]++
	}
	for direction, n := range n {
		e.gauge("peerlink_connections", float64(n), peer, label("direction", direction))
	}
}

// certificates writes, for each role, when the first certificate expires: a peer may have
// several server certificates.
func (e exposition) certificates(list []link.Expiry, peer string) {
	told := make(map[string]bool)
	for _, c := range list { // sorted by NotAfter
		if !told[c.Role] {
			told[c.Role] = true
			e.gauge("peerlink_certificate_expiry_timestamp_seconds", float64(c.NotAfter.Unix()), peer, label("role", c.Role))
		}
	}
}

func (e exposition) queues(l *Links) {
	for _, q := range l.Queues {
		name := label("queue", q.Name)
		e.gauge("peerlink_queue_messages", float64(q.Messages), name)
		e.gauge("peerlink_queue_set_aside_messages", float64(q.SetAside), name)
		age := 0.0
		if q.Oldest != nil {
			age = max(0, l.At.Sub(*q.Oldest).Seconds())
		}
		e.gauge("peerlink_queue_oldest_age_seconds", age, name)
	}
	if l.StoreBytes > 0 {
		e.gauge("peerlink_store_bytes", float64(l.StoreBytes))
	}
}

// process writes metrics of the process without using /proc: a process that is not
// dumpable can not read all of its own files there.
func (e exposition) process() {
	e.gauge("go_goroutines", float64(runtime.NumGoroutine()))
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	e.gauge("go_memstats_heap_alloc_bytes", float64(m.HeapAlloc))
	e.gauge("go_memstats_sys_bytes", float64(m.Sys))
}

func truth(b bool) float64 {
	if b {
		return 1
	}
	return 0
}
