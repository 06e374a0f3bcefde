package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"peerlink/broker"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

const (
	// thousand is the number of peers.
	thousand = 1000
	// outage is how long the authority and its peers are disconnected.
	outage = 5 * time.Second
)

// BenchmarkThousandPeers measures how an accounting authority and a thousand peers
// reconnect after they have been disconnected for some seconds: because all peers
// restart at the same time, because the authority restarts, or because the network
// between them fails. Each side then has a message for the other in each queue. An
// operation is one disconnection and reconnection.
//
// As in production, the peers do not use the authority's processors: they run in another
// process, on the other half of the CPUs. They connect from a thousand addresses, or all
// from one, as behind NAT. (Only Linux has enough loopback addresses.) In "RSA" the
// authority has a server key of the kind that the reference implementation makes, with
// which a handshake takes five times as long.
//
// The benchmark reports the time until all links are up in both directions, the largest
// number of handshakes that the authority has begun within a second, the number of failed
// handshakes on both sides, the processor time used by the authority and by all peers
// together, and the maximum numbers of goroutines and of bytes of memory of the authority.
// One more peer, the honest peer, does not restart. "waited-ms" is the longest time that
// one of its messages has waited for confirmation: a restart of all other peers should
// hardly delay its messages.
func BenchmarkThousandPeers(b *testing.B) {
	linux := runtime.GOOS == "linux"
	for _, bb := range []struct {
		name  string
		apart bool
		key   pki.KeyKind
	}{
		{"own addresses", true, pki.P256},
		{"one address", false, pki.P256},
		{"RSA", linux, pki.RSA3072},
	} {
		b.Run(bb.name, func(b *testing.B) {
			if bb.apart && !linux {
				b.Skip("skipped: this system has one address on loopback")
			}
			m := newPeersBenchmark(b, bb.apart, bb.key)
			for _, d := range []disconnection{
				{"peers restart", (*peersBenchmark).peersRestart},
				{"authority restarts", (*peersBenchmark).authorityRestarts},
				{"network", (*peersBenchmark).networkFails},
			} {
				b.Run(d.name, func(b *testing.B) {
					var all reconnections
					for range b.N {
						all = append(all, m.measure(b, d))
					}
					all.report(b)
				})
			}
		})
	}
}

// peersBenchmark is an authority and a thousand peers.
type peersBenchmark struct {
	b                 *testing.B
	apart             bool
	authority, honest *linktest.Node
	members           []linktest.Agent
	line              *linktest.Network
	peers             *helperProcess
	sent              int               // number of messages put into each queue
	past              map[string]uint64 // failed handshakes of the authority's former services, by reason
}

func newPeersBenchmark(b *testing.B, apart bool, key pki.KeyKind) *peersBenchmark {
	b.Helper()
	m := &peersBenchmark{b: b, apart: apart, past: make(map[string]uint64), authority: linktest.New(b, nodetype.AccountingAuthority), honest: linktest.New(b, nodetype.CreditorsAgent)}
	nodetest.Peer(b, m.authority.Node, m.honest.Node)
	m.authority.WriteServerCertOf(b, key, m.authority.CertFile, m.authority.KeyFile, 365*24*time.Hour)
	m.authority.Wrap = func(l net.Listener) net.Listener {
		m.line = &linktest.Network{Listener: l, DistinctSources: apart}
		return m.line
	}
	// The default configuration is measured, not the short times of linktest.
	m.authority.Config = link.Config{Broker: m.authority.Store}
	m.members = linktest.NewAgents(b, m.authority, thousand)
	measured, others := halves(b)
	keepTo(b, measured)
	m.peers = startHelperProcess(b, "peers", others, m.members)
	m.authority.Start()
	m.honest.Start()
	m.honest.Put(m.authority, linktest.Message(b, m.honest, m.authority, 0)) // its confirmation shows that the link is up
	m.honest.WaitDrained(m.authority, 0)
	m.command("start")
	m.awaitLinks(b)
	return m
}

// peersState is the state of the peers.
type peersState struct {
	linktest.AgentsState
	Processor time.Duration // the processor time used by their process
}

// command sends a command to the process of the peers, and returns their state.
func (m *peersBenchmark) command(command string) (st peersState) {
	m.b.Helper()
	m.peers.command(command, &st)
	return st
}

// peersProcess is the process of the thousand peers.
func peersProcess(settings json.RawMessage) (func(string) (any, error), error) {
	var members []linktest.Agent
	if err := json.Unmarshal(settings, &members); err != nil {
		return nil, err
	}
	c, err := linktest.OpenAgents(members, link.Config{PollInterval: 10 * time.Second})
	return func(command string) (any, error) {
		var err error
		switch command {
		case "start":
			err = c.Start()
		case "stop":
			err = c.Stop()
		case "cut":
			c.Cut()
		case "mend":
			c.Mend()
		case "put":
			c.Put()
		}
		return peersState{c.State(), processorTime()}, err
	}, err
}

// disconnection is a way to disconnect the authority and the peers. The function that
// disconnect returns ends the disconnection.
type disconnection struct {
	name       string
	disconnect func(*peersBenchmark) (reconnect func())
}

func (m *peersBenchmark) peersRestart() (reconnect func()) {
	m.command("stop")
	return func() { m.command("start") }
}

func (m *peersBenchmark) authorityRestarts() (reconnect func()) {
	if err := m.authority.Stop(); err != nil {
		m.b.Fatal(err)
	}
	return func() {
		linktest.AddRejected(m.past, m.authority.Service)
		m.authority.Start()
	}
}

func (m *peersBenchmark) networkFails() (reconnect func()) {
	m.line.Cut()
	m.command("cut")
	return func() {
		m.command("mend")
		m.line.Mend()
	}
}

// putAll puts a message into each queue on both sides.
func (m *peersBenchmark) putAll() {
	m.b.Helper()
	m.sent++
	m.command("put")
	var g errgroup.Group
	g.SetLimit(100) // concurrent calls make large transactions
	for _, to := range m.members {
		message := to.MessageTo(m.b, m.authority, m.sent)
		g.Go(func() error {
			return m.authority.Store.PutAll(context.Background(), to.Queue(), []broker.Outgoing{message})
		})
	}
	if err := g.Wait(); err != nil {
		m.b.Fatal(err)
	}
}

// awaitLinks waits until all links are up in both directions.
func (m *peersBenchmark) awaitLinks(b *testing.B) {
	b.Helper()
	deadline := time.Now().Add(5 * time.Minute)
	for {
		linked := 0
		for _, p := range m.authority.Service.Status().Peers {
			if linktest.Linked(&p) {
				linked++
			}
		}
		if linked == thousand+1 {
			return
		}
		if time.Now().After(deadline) {
			log := m.authority.Log.String()
			b.Fatalf("after 5 minutes %d of %d links are up\n%+v\n%s", linked, thousand+1, m.command("state"), log[max(0, len(log)-1000):])
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// awaitMessages waits until all sending queues on both sides are empty.
func (m *peersBenchmark) awaitMessages(b *testing.B) {
	b.Helper()
	linktest.Eventually(b, "the messages", func() error {
		stats, err := m.authority.Store.Stats(context.Background())
		if err != nil {
			return err
		}
		left := int64(0)
		for _, q := range stats.Queues {
			if q.Name != m.authority.Identity().Type.Inbox() {
				left += int64(q.Depth)
			}
		}
		if st := m.command("state"); left > 0 || st.Waiting > 0 {
			return fmt.Errorf("%d messages of the authority and %d of the peers are left", left, st.Waiting)
		}
		return nil
	})
}

// measure disconnects the two sides for the time outage, and measures their reconnection.
func (m *peersBenchmark) measure(b *testing.B, d disconnection) reconnection {
	b.Helper()
	m.awaitMessages(b)
	reconnect := d.disconnect(m)
	time.Sleep(outage) // the pauses between connection attempts grow meanwhile
	m.putAll()
	before, used, usedByPeers := m.rejected(), processorTime(), m.command("state").Processor
	w := startWatch(b, m)
	start := time.Now()
	reconnect()
	m.awaitLinks(b)
	r := reconnection{
		took: time.Since(start), watched: w.end(), busiest: linktest.Busiest(m.line.Begun(start), time.Second),
		used: processorTime() - used, usedByPeers: m.command("state").Processor - usedByPeers,
	}
	for reason, n := range m.rejected() {
		if n -= before[reason]; n > 0 {
			b.Logf("%d handshakes have failed: %s", n, reason)
			r.failed += int(n)
		}
	}
	m.awaitMessages(b)
	return r
}

// rejected returns the number of failed handshakes on both sides, by reason. They are
// counted by the node that accepts the connection.
func (m *peersBenchmark) rejected() map[string]uint64 {
	sum := m.command("state").Rejected
	linktest.AddRejected(sum, m.authority.Service)
	for reason, n := range m.past {
		sum[reason] += n
	}
	return sum
}

// reconnection is the result of one reconnection of the two sides.
type reconnection struct {
	took              time.Duration
	used, usedByPeers time.Duration // processor time
	busiest, failed   int           // most handshakes begun within a second; failed handshakes
	watched
}

type reconnections []reconnection

// report reports the median of each metric.
func (rs reconnections) report(b *testing.B) {
	b.Helper()
	for _, metric := range []struct {
		name  string
		value func(reconnection) float64
	}{
		{"s-until-linked", func(r reconnection) float64 { return r.took.Seconds() }},
		{"cpu-s", func(r reconnection) float64 { return r.used.Seconds() }},
		{"peers-cpu-s", func(r reconnection) float64 { return r.usedByPeers.Seconds() }},
		{"handshakes/s-most", func(r reconnection) float64 { return float64(r.busiest) }},
		{"failed", func(r reconnection) float64 { return float64(r.failed) }},
		{"goroutines", func(r reconnection) float64 { return float64(r.goroutines) }},
		{"MiB", func(r reconnection) float64 { return float64(r.bytes) / (1 << 20) }},
		{"waited-ms", func(r reconnection) float64 { return float64(r.waited.Milliseconds()) }},
	} {
		var list []float64
		for _, r := range rs {
			list = append(list, metric.value(r))
		}
		b.ReportMetric(median(list), metric.name)
	}
	b.ReportMetric(0, "ns/op")
}

// watched holds the maximum values that a watch has observed.
type watched struct {
	goroutines int
	bytes      uint64
	waited     time.Duration // from the sending of a message of the honest peer to its confirmation
}

// watch observes this process and the messages of the honest peer until it is stopped.
type watch struct {
	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup
	watched
}

func startWatch(b *testing.B, m *peersBenchmark) *watch {
	w := new(watch)
	w.ctx, w.stop = context.WithCancel(context.Background())
	w.wg.Go(func() {
		for ; w.ctx.Err() == nil; time.Sleep(10 * time.Millisecond) {
			w.goroutines = max(w.goroutines, runtime.NumGoroutine())
			w.bytes = max(w.bytes, memoryInUse())
		}
	})
	message := []broker.Outgoing{linktest.Message(b, m.honest, m.authority, 0)}
	w.wg.Go(func() {
		for ; w.ctx.Err() == nil; time.Sleep(20 * time.Millisecond) {
			want, put := m.honestConfirmed()+1, time.Now()
			if err := m.honest.Store.PutAll(context.Background(), linktest.QueueTo(m.authority), message); err != nil {
				b.Error(err)
				return
			}
			for m.honestConfirmed() < want && w.ctx.Err() == nil {
				time.Sleep(time.Millisecond)
			}
			w.waited = max(w.waited, time.Since(put))
		}
	})
	return w
}

func (w *watch) end() watched {
	w.stop()
	w.wg.Wait()
	return w.watched
}

func (m *peersBenchmark) honestConfirmed() uint64 {
	return m.honest.Service.Status().Peers[0].Counts.Confirmed
}

// memoryInUse returns the number of bytes that the Go runtime has obtained from the operating
// system and not returned to it.
func memoryInUse() uint64 {
	samples := []metrics.Sample{{Name: "/memory/classes/total:bytes"}, {Name: "/memory/classes/heap/released:bytes"}}
	metrics.Read(samples)
	return samples[0].Value.Uint64() - samples[1].Value.Uint64()
}
