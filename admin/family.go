package admin

import (
	"fmt"
	"io"

	"github.com/VictoriaMetrics/metrics"
)

// The metric types of Prometheus.
const (
	gauge   = "gauge"
	counter = "counter"
)

// families are all metrics, in the order in which they are written. docs/operations.md has
// more about their meaning.
var families = []struct{ name, kind, help string }{
	{"peerlink_info", gauge, "Version, node ID and type of the node; always 1."},
	{"peerlink_ready", gauge, "1 while the service serves all peers."},
	{"peerlink_broker_warnings", gauge, "Queues in RabbitMQ of messages set aside that can be lost."},
	{"peerlink_peers", gauge, "Peers in each state."},
	{"peerlink_connections", gauge, "Connections that carry messages now."},
	{"peerlink_messages_sent_total", counter, "Messages given to a connection."},
	{"peerlink_bytes_sent_total", counter, "Bytes of the messages given to a connection."},
	{"peerlink_messages_confirmed_total", counter, "Sent messages that the peer has stored."},
	{"peerlink_messages_received_total", counter, "Messages that came from the peer."},
	{"peerlink_bytes_received_total", counter, "Bytes of the messages that came from the peer."},
	{"peerlink_messages_stored_total", counter, "Received messages that our broker has stored."},
	{"peerlink_messages_refused_total", counter, "Received messages that were invalid."},
	{"peerlink_messages_refused_by_peer_total", counter, "Sent messages that the peer has refused."},
	{"peerlink_messages_set_aside_total", counter, "Messages taken out of the queue because they can not be sent."},
	{"peerlink_connects_total", counter, "Connections that came to carry messages."},
	{"peerlink_failures_total", counter, "Attempts and connections for sending that failed."},
	{"peerlink_bundle_fetches_total", counter, "Looks for a newer info-bundle where the peer publishes it."},
	{"peerlink_bundle_fetch_failures_total", counter, "Looks for a newer info-bundle in which something went wrong."},
	{"peerlink_connections_rejected_total", counter, "Connections ended before they belonged to a peer."},
	{"peerlink_log_records_dropped_total", counter, "Records of the log that nobody has read in time, or that could not be written."},
	{"peerlink_certificate_expiry_timestamp_seconds", gauge, "When the first certificate in this role ends, in Unix time."},
	{"peerlink_queue_messages", gauge, "Messages in the queue."},
	{"peerlink_queue_set_aside_messages", gauge, "Messages of the queue that are set aside."},
	{"peerlink_queue_oldest_age_seconds", gauge, "Age of the oldest message in the queue."},
	{"peerlink_store_bytes", gauge, "Size of the message store's files."},
	{"go_goroutines", gauge, "Goroutines that exist now."},
	{"go_memstats_heap_alloc_bytes", gauge, "Bytes of the heap that are in use."},
	{"go_memstats_sys_bytes", gauge, "Bytes obtained from the system."},
}

// exposition collects the series of each metric, by the metric's name. The library alone
// would write them without HELP and TYPE lines.
type exposition map[string]*metrics.Set

// family returns the series of a metric.
func (e exposition) family(name string) *metrics.Set {
	if e[name] == nil {
		e[name] = metrics.NewSet()
	}
	return e[name]
}

func (e exposition) gauge(name string, value float64, labels ...string) {
	e.family(name).NewGauge(series(name, labels), func() float64 { return value })
}

func (e exposition) counter(name string, value uint64, labels ...string) {
	e.family(name).NewCounter(series(name, labels)).Set(value)
}

// write writes the metrics that have series.
func (e exposition) write(w io.Writer) {
	for _, f := range families {
		if set := e[f.name]; set != nil {
			fmt.Fprintf(w, "# HELP %s %s\n# TYPE %s %s\n", f.name, f.help, f.name, f.kind)
			set.WritePrometheus(w)
		}
	}
}
