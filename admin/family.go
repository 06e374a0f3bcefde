package admin

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"peerlink/internal/latency"
)

// family describes the series of one metric.
type family struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
}

// families are peerlink's metrics by name. docs/operations.md has more about their
// meaning.
var families = makeFamilies()

func makeFamilies() map[string]family {
	byName := make(map[string]family)
	for _, f := range []struct {
		name, help string
		labels     []string
	}{
		{"info", "Version, node ID and type of the node; always 1.", []string{"version", "node", "type"}},
		{"ready", "1 while the service can serve its peers, reachable or not.", nil},
		{"broker_warnings", "Queues in RabbitMQ whose messages can be lost.", nil},
		{"peers", "Peers in each state.", []string{"state"}},
		{"connections", "Open connections with a session.", []string{"peer", "direction"}},
		{"messages_sent_total", "Messages written to a connection.", []string{"peer"}},
		{"bytes_sent_total", "Bytes of the messages written to a connection.", []string{"peer"}},
		{"messages_confirmed_total", "Sent messages that the peer has stored.", []string{"peer"}},
		{"messages_received_total", "Messages received from the peer.", []string{"peer"}},
		{"bytes_received_total", "Bytes of the messages received from the peer.", []string{"peer"}},
		{"messages_stored_total", "Received messages that this node's broker has stored.", []string{"peer"}},
		{"messages_refused_total", "Received messages that were invalid.", []string{"peer"}},
		{"messages_refused_by_peer_total", "Sent messages that the peer has refused.", []string{"peer"}},
		{"messages_set_aside_total", "Messages taken out of the queue because they can not be sent.", []string{"peer"}},
		{"messages_held", "Messages that can not be sent, and can not be set aside either now, or only slowly; they stay in their queue.", []string{"peer"}},
		{"connects_total", "Connections on which a session began.", []string{"peer"}},
		{"failures_total", "Failed attempts to connect for sending, and connections for sending that failed.", []string{"peer"}},
		{"bundle_fetches_total", "Fetches of the info-bundle that the peer publishes.", []string{"peer"}},
		{"bundle_fetch_failures_total", "Fetches of the info-bundle that the peer publishes that failed.", []string{"peer"}},
		{"connections_rejected_total", "Connections rejected before they were registered with a peer.", []string{"reason"}},
		{"application_messages_total", "Messages that the node's applications have sent, by what has become of them.", []string{"result"}},
		{"log_records_dropped_total", "Log records dropped because they were not read in time, or could not be written.", nil},
		{"certificate_expiry_timestamp_seconds", "When the first certificate in this role expires, in Unix time.", []string{"peer", "role"}},
		{"queue_messages", "Messages in the queue.", []string{"queue", "peer"}},
		{"queue_set_aside_messages", "Messages of the queue that are set aside.", []string{"queue", "peer"}},
		{"queue_oldest_age_seconds", "Age of the oldest message in the queue.", []string{"queue", "peer"}},
		{"link_state", "The state of the link in one direction, as its verdict; always 1.", []string{"peer", "direction", "verdict"}},
		{"link_confirm_seconds", "Time from sending a message until the peer has confirmed it.", []string{"peer"}},
		{"link_handshake_seconds", "Time of successful TLS handshakes.", []string{"peer"}},
		{"store_commit_seconds", "Time of synced write transactions of the message store.", nil},
		{"unconsumed_bytes", "Size of the messages received from the peer that no application has consumed.", []string{"peer"}},
		{"peer_quota_bytes", "The size of the messages of one peer from which no more are accepted; missing if there is no limit.", nil},
		{"store_free_bytes", "Free space on the disk of the message store.", nil},
		{"store_min_free_bytes", "Free space below which few messages of peers are accepted; missing if there is no limit.", nil},
		{"store_bytes", "Size of the message store's files.", nil},
	} {
		name, kind := "peerlink_"+f.name, prometheus.GaugeValue
		if strings.HasSuffix(name, "_total") {
			kind = prometheus.CounterValue
		}
		byName[name] = family{prometheus.NewDesc(name, f.help, f.labels, nil), kind}
	}
	return byName
}

// emitter receives the series of one scrape.
type emitter chan<- prometheus.Metric

// emit adds a series. Label values may be any text; bytes that are not UTF-8 are replaced.
func (e emitter) emit(name string, value float64, labels ...string) {
	f := families[name]
	for i := range labels {
		labels[i] = strings.ToValidUTF8(labels[i], "\uFFFD")
	}
	e <- prometheus.MustNewConstMetric(f.desc, f.kind, value, labels...)
}

// emitHistogram adds a series of durations in seconds.
func (e emitter) emitHistogram(name string, h latency.Histogram, labels ...string) {
	buckets := make(map[float64]uint64, len(h.Bounds))
	for i, bound := range h.Bounds {
		buckets[bound] = h.Cumulative[i]
	}
	e <- prometheus.MustNewConstHistogram(families[name].desc, h.Count, h.Sum, buckets, labels...)
}
