package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/stomp"
)

const (
	// attackRounds is the number of rounds of one benchmark operation.
	attackRounds = 5
	// attackTime is how long messages are counted in a round, without the attack and
	// again with it.
	attackTime = 1500 * time.Millisecond
)

// BenchmarkUnderAttack measures the throughput of an honest peer's messages to a node,
// alternately without and with an attack on the node, and reports the ratio of both: the
// smallest, the median and the largest of all rounds.
//
// The attackers run in a process of their own on one half of the CPUs, and both nodes on
// the other half, as if the attackers had other machines. (A line says so where that is not
// possible.) They attack at fixed rates. For each kind of attack, the benchmark reports how
// many attacks per second had the intended effect, and it fails if these are far fewer than
// intended. For a flood of messages, which the node holds off, it reports how many
// connections try to send.
//
// On a busy machine the throughput says little. The metric "cpus" is more reliable: how
// many processors the nodes used for the attack. On a machine with two CPUs, both nodes have
// one together; 0.2 cpus would leave 0.8 of the throughput.
//
// In "filling", the peer that floods has not filled its quota. Until it has, only the
// default rate of each peer limits its share. In all other cases there is no such rate, so
// that the honest peer uses all CPUs of the nodes.
func BenchmarkUnderAttack(b *testing.B) {
	const small, endless = 16 << 20, 1 << 40
	for _, bb := range []struct {
		name  string
		quota int64 // of each peer
		rate  int   // of each peer
		kinds []string
		// oneAddress is set if the attackers have the peer's source address.
		oneAddress bool
	}{
		{"handshakes", small, 0, []string{"strangers", "chains"}, false},
		{"one-address", small, 0, []string{"strangers", "silence"}, true},
		{"slow", small, 0, []string{"silence", "loris"}, false},
		{"peers", small, 0, []string{"garbage", "flood"}, false},
		{"all", small, 0, []string{"strangers", "chains", "silence", "loris", "garbage", "flood"}, false},
		{"filling", endless, link.DefaultMaxRate, []string{"flood"}, false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			measured, others := halves(b)
			keepTo(b, measured)
			f := newAttackedNode(b, bb.quota, bb.rate)
			enemy := startHelperProcess(b, "attackers", others, f.attackSettings(bb.kinds, bb.oneAddress))
			if bb.quota == small && slices.Contains(bb.kinds, "flood") {
				f.fillQuota(enemy)
			}
			f.carry() // warm-up
			f.drain()
			calm := runtime.NumGoroutine()
			var free, attacked, ratios, freeTime, attackedTime, cost []float64
			var counts attackCounts
			b.ResetTimer()
			for range b.N * attackRounds {
				rate, used := f.carry()
				f.drain()
				free, freeTime = append(free, rate), append(freeTime, used)

				enemy.command("begin", new(any))
				attackedRate, attackedUsed := f.carry()
				attacked, attackedTime = append(attacked, attackedRate), append(attackedTime, attackedUsed)
				ratios, cost = append(ratios, attackedRate/rate), append(cost, (attackedUsed-used)*attackedRate/1e6)
				pressing := f.connectionsOf("flood")
				var list []attackCount
				enemy.command("end", &list)
				counts.add(list, pressing)
				f.drain()
				f.awaitAttackEnd(calm)
			}
			b.StopTimer()
			counts.report(b)
			b.ReportMetric(median(free), "free-msg/s")
			b.ReportMetric(median(attacked), "msg/s")
			b.ReportMetric(slices.Min(ratios), "of-free-min")
			b.ReportMetric(median(ratios), "of-free")
			b.ReportMetric(slices.Max(ratios), "of-free-max")
			b.ReportMetric(median(freeTime), "free-µs/msg")
			b.ReportMetric(median(attackedTime), "µs/msg")
			b.ReportMetric(median(cost), "cpus")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// attackCounts sums up the attacks of all rounds.
type attackCounts struct {
	sums     []attackCount
	pressing []float64 // number of connections of the flood, in each round
}

func (ls *attackCounts) add(list []attackCount, pressing int) {
	if ls.sums == nil {
		ls.sums = make([]attackCount, len(list))
	}
	for i, l := range list {
		sum := &ls.sums[i]
		sum.Name, sum.Landed, sum.Meant, sum.During = l.Name, sum.Landed+l.Landed, sum.Meant+l.Meant, sum.During+l.During
	}
	ls.pressing = append(ls.pressing, float64(pressing))
}

func (ls *attackCounts) report(b *testing.B) {
	b.Helper()
	for _, l := range ls.sums {
		b.ReportMetric(float64(l.Landed)/l.During.Seconds(), l.Name+"/s")
		if float64(l.Landed) < 0.7*l.Meant {
			b.Errorf("%s: %d attacks succeeded, %.0f were intended: the results do not show the effect of the attack", l.Name, l.Landed, l.Meant)
		}
		if l.Name != "flood" {
			continue
		}
		least := slices.Min(ls.pressing)
		b.ReportMetric(least, "flood-conns")
		if least < floodConns {
			b.Errorf("flood: only %v of %d connections were open", least, floodConns)
		}
	}
}

// attackedNode is a node that is attacked, with its honest peer and the peers that
// attack it.
type attackedNode struct {
	b                 *testing.B
	authority, honest *linktest.Node
	bad               map[string]*linktest.Node // peers that attack, by the kind of attack
	list              []broker.Outgoing
	put               uint64 // number of messages put into the queue of the honest peer
}

// newAttackedNode starts a node with an embedded store, in which each peer has the given
// quota, and its honest peer.
func newAttackedNode(b *testing.B, quota int64, rate int) *attackedNode {
	b.Helper()
	f := newAttackedNodeOn(b, linktest.EmbeddedWith(embedded.Options{PeerQuota: quota}), rate)
	go f.application()
	return f
}

// newAttackedNodeOn starts a node with the given broker, and its honest peer. rate is the
// maximum message rate of each peer; 0 means no limit.
func newAttackedNodeOn(b *testing.B, on linktest.BrokerSetup, rate int) *attackedNode {
	b.Helper()
	f := &attackedNode{
		b:         b,
		authority: linktest.NewOn(b, nodetype.AccountingAuthority, on),
		honest:    linktest.New(b, nodetype.CreditorsAgent),
		bad:       make(map[string]*linktest.Node),
	}
	nodetest.Peer(b, f.authority.Node, f.honest.Node)
	for _, name := range []string{"garbage", "loris", "flood"} {
		f.bad[name] = linktest.New(b, nodetype.CreditorsAgent)
		nodetest.Peer(b, f.authority.Node, f.bad[name].Node)
	}
	f.authority.Config.MaxRate = rate
	// Short heart-beats let the node detect between rounds that attackers have disconnected.
	f.authority.Config.HeartBeat = stomp.HeartBeat{Send: 200 * time.Millisecond, Receive: stomp.DefaultReceive}
	f.authority.Start()
	f.honest.Start()
	f.list = messages(b, f.honest, f.authority)
	f.honest.Put(f.authority, f.list[0]) // its confirmation shows that the link is up
	f.put = 1
	f.drain()
	return f
}

// application takes the messages of the honest peer out of the inbox, and leaves all
// others there.
func (f *attackedNode) application() {
	sub := f.authority.Store.Subscribe(f.authority.Identity().Type.Inbox())
	defer sub.Close()
	for {
		list, err := sub.Next(f.b.Context(), 1000)
		if err != nil {
			return // the benchmark has ended
		}
		var taken []uint64
		for _, m := range list {
			if m.Peer == f.honest.Identity().ID {
				taken = append(taken, m.Seq)
			}
		}
		if err := sub.Ack(taken, nil); err != nil {
			return
		}
	}
}

// carry sends messages from the honest peer to the node for [attackTime]. It returns the
// number of messages per second that have been confirmed to the honest peer, and the
// processor time per message that both nodes have used, in microseconds.
func (f *attackedNode) carry() (perSecond, used float64) {
	f.b.Helper()
	first, start, before := f.confirmed(), time.Now(), processorTime()
	for time.Since(start) < attackTime {
		if f.put > f.confirmed()+4*batch {
			time.Sleep(2 * time.Millisecond)
			continue
		}
		if err := f.honest.Store.PutAll(context.Background(), linktest.QueueTo(f.authority), f.list); err != nil {
			f.b.Fatal(err)
		}
		f.put += batch
	}
	count := float64(f.confirmed() - first)
	return count / time.Since(start).Seconds(), float64((processorTime() - before).Microseconds()) / count
}

// drain waits until all messages are confirmed.
func (f *attackedNode) drain() {
	f.b.Helper()
	linktest.Eventually(f.b, "the confirmation of all messages", func() error {
		if n := f.confirmed(); n < f.put {
			return fmt.Errorf("%d of %d messages are confirmed", n, f.put)
		}
		return nil
	})
}

// confirmed returns the number of messages that have been confirmed to the honest peer.
func (f *attackedNode) confirmed() uint64 { return f.honest.Service.Status().Peers[0].Counts.Confirmed }

// roundTrips sends messages from the honest peer for [attackTime], each of them after the
// previous one has been confirmed. It returns the time from the sending of each message to
// its confirmation, in milliseconds.
func (f *attackedNode) roundTrips() (took []float64) {
	f.b.Helper()
	for start := time.Now(); time.Since(start) < attackTime; {
		sent := time.Now()
		f.honest.Put(f.authority, f.list[0])
		f.put++
		for f.confirmed() < f.put {
			if time.Since(sent) > time.Minute {
				f.b.Fatal("a message is not confirmed within a minute")
			}
			time.Sleep(200 * time.Microsecond)
		}
		took = append(took, float64(time.Since(sent).Microseconds())/1000)
	}
	return took
}

// connectionsOf returns the number of connections that the named bad peer has with the
// node.
func (f *attackedNode) connectionsOf(name string) int {
	for _, p := range f.authority.Service.Status().Peers {
		if p.ID == f.bad[name].Identity().ID {
			return len(p.Connections)
		}
	}
	return 0
}

// fillQuota lets a peer flood the node until its quota is full, so that the node accepts no
// more messages from it.
func (f *attackedNode) fillQuota(enemy *helperProcess) {
	f.b.Helper()
	enemy.command("begin", new(any))
	linktest.Eventually(f.b, "the quota", func() error {
		if log := f.authority.Log.String(); !strings.Contains(log, "fill its quota") {
			return errors.New(log)
		}
		return nil
	})
	enemy.command("end", new(any))
}

// attackSettings returns the settings of the attackers.
func (f *attackedNode) attackSettings(kinds []string, oneAddress bool) *attackSettings {
	f.b.Helper()
	s := &attackSettings{Addr: f.authority.Addr, Kinds: kinds, OneAddress: oneAddress, Peers: make(map[string]credentials)}
	for name, n := range f.bad {
		p, err := n.Peer(f.authority.Identity().ID)
		if err != nil {
			f.b.Fatal(err)
		}
		s.Peers[name] = credentials{n.CertFile, n.KeyFile, p.SubCA.Raw}
		if name != "flood" {
			continue
		}
		// The message as the peer's service would translate it: the account is in the
		// peer's subnet.
		subnet, err := strconv.ParseUint(p.Subnet, 16, 64)
		if err != nil {
			f.b.Fatal(err)
		}
		own := linktest.Message(f.b, n, f.authority, 1).Body
		s.Message = bytes.Replace(own, fmt.Append(nil, 0x000001_01_00000000), fmt.Append(nil, subnet<<40|0x01_00000000), 1)
		if bytes.Equal(own, s.Message) {
			f.b.Fatalf("no account in %s", own)
		}
	}
	return s
}

// awaitAttackEnd waits until the node has finished all work that an attack has caused: until
// the number of goroutines is at most a quarter larger than calm, the number before the
// attacks.
func (f *attackedNode) awaitAttackEnd(calm int) {
	f.b.Helper()
	linktest.Eventually(f.b, "the end of the attack", func() error {
		if n := runtime.NumGoroutine(); n > calm+calm/4 {
			return fmt.Errorf("%d goroutines, before the attacks there were %d", n, calm)
		}
		return nil
	})
}
