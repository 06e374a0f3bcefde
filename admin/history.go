package admin

import (
	"context"
	"sync"
	"time"
)

// The history is the last hour, in samples of 20 bytes: 4,800 bytes for each peer.
const (
	sampleInterval  = 15 * time.Second
	historySamples  = 240
	maxHistoryPeers = 1000 // 5 MB; peers beyond that have no history
)

// sample is the state of a link, or of all links, in the interval before a moment.
type sample struct {
	out, in  float32 // messages per second
	waiting  float32 // messages in the queues at the end of the interval
	p50, p99 float32 // the time to confirm, in milliseconds; 0 if nothing was confirmed
}

// ring holds the last historySamples samples.
type ring struct {
	samples []sample // allocated completely when there is a first one
	next    int      // where the next sample goes
	last    uint64   // the number of the sampling with the last sample

	sent, received uint64 // the counters at that time
	known          bool   // the counters are known, so that the next sampling can compare
}

// add adds a sample, after discarding those of a ring that has missed a sampling.
func (r *ring) add(number uint64, s sample) {
	if r.last+1 != number {
		r.samples, r.next = nil, 0
	}
	if r.samples == nil {
		r.samples = make([]sample, 0, historySamples)
	}
	if len(r.samples) < historySamples {
		r.samples = append(r.samples, s)
	} else {
		r.samples[r.next] = s
		r.next = (r.next + 1) % historySamples
	}
	r.last = number
}

// list returns the samples, the oldest first.
func (r *ring) list() []sample {
	return append(append([]sample(nil), r.samples[r.next:]...), r.samples[:r.next]...)
}

// history keeps the last hour of the links. Its methods are safe for concurrent use.
type history struct {
	mu     sync.Mutex
	number uint64 // of samplings
	at     time.Time
	node   ring             // of all peers together
	peers  map[string]*ring // by peer ID
}

// record adds a sample of each link. l is the state of the service now.
func (h *history) record(l *Links) {
	h.mu.Lock()
	defer h.mu.Unlock()
	seconds := float32(l.At.Sub(h.at).Seconds())
	h.number++
	h.at = l.At
	if h.peers == nil {
		h.peers = make(map[string]*ring)
	}
	var sum sample
	for i := range l.Peers {
		p := &l.Peers[i]
		s, ok := h.recordPeer(p.ID, p.Counts.Sent, p.Counts.Received, seconds, sample{
			waiting: float32(l.QueueOf(*p).Messages), p50: float32(p.Confirm.P50 * 1000), p99: float32(p.Confirm.P99 * 1000),
		})
		if !ok {
			continue
		}
		sum.out, sum.in, sum.waiting = sum.out+s.out, sum.in+s.in, sum.waiting+s.waiting
		sum.p50, sum.p99 = max(sum.p50, s.p50), max(sum.p99, s.p99)
	}
	h.node.add(h.number, sum)
	for id, r := range h.peers {
		if h.number-r.last > historySamples {
			delete(h.peers, id)
		}
	}
}

// recordPeer adds a sample of one link, if there is an earlier one to compare the counters with.
func (h *history) recordPeer(id string, sent, received uint64, seconds float32, s sample) (sample, bool) {
	r := h.peers[id]
	if r == nil {
		if len(h.peers) >= maxHistoryPeers {
			return s, false
		}
		r = &ring{last: h.number - 1}
		h.peers[id] = r
	}
	// The counters of a peer that was removed and is there again begin at zero.
	if r.known && r.last+1 == h.number && seconds > 0 && sent >= r.sent && received >= r.received {
		s.out, s.in = float32(sent-r.sent)/seconds, float32(received-r.received)/seconds
	}
	r.sent, r.received, r.known = sent, received, true
	r.add(h.number, s)
	return s, true
}

// of returns the samples of a peer, or of all peers together if id is "", the oldest first.
func (h *history) of(id string) []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	r := &h.node
	if id != "" {
		r = h.peers[id]
	}
	if r == nil {
		return nil
	}
	return r.list()
}

// keepHistory records the history until ctx is done.
func (s *Server) keepHistory(ctx context.Context) {
	ticker := time.NewTicker(sampleInterval)
	defer ticker.Stop()
	for {
		l := s.links(ctx)
		s.history.record(&l)
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return
		}
	}
}
