//go:build linux

package faulttest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/broker/embedded"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// bound is the longest standstill after a fault has ended. It is the sum of the times
// in the settings of the nodes, at worst and in this order: detecting a dead
// connection, a connection and a handshake that fail, a pause of the sender (with full
// jitter up to twice retryMax), a pause of a store that could not write (5 s) or of a
// broken connection to RabbitMQ (7.5 s); and the same again for a busy machine.
//
// By the defaults of [link.Config] the same adds up to a little more than five
// minutes, most of it the pause of the sender.
const bound = 2 * (heartBeat + heartBeatGrace + connectTimeout + handshakeTimeout + 2*retryMax + 7500*time.Millisecond)

// world consists of a few nodes, the network between them, and their applications.
type world struct {
	t          *testing.T
	members    []*member
	directions []*direction
	report     *report
	quiet      atomic.Bool // the applications send nothing
}

// member is one node of a world.
type member struct {
	*nodetest.Node
	name     string // "AA", "CA" or "DA"
	kind     nodetype.Type
	wire     *wire // in front of its server
	settings nodeSettings
	process  *process
	rabbit   *rabbittest.Server // nil with the embedded broker
	limited  bool               // State is a separate file system, which can be filled
}

// newWorld makes an accounting authority with a creditors agent and a debtors agent,
// links them, and starts everything. The creditors agent keeps its messages in
// RabbitMQ, if it is installed, the others in an embedded store.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t}
	authority := w.add(nodetype.AccountingAuthority, nil)
	agents := []*member{w.add(nodetype.CreditorsAgent, startRabbit(t)), w.add(nodetype.DebtorsAgent, nil)}
	for _, agent := range agents {
		nodetest.Peer(t, authority.Node, agent.Node)
		for _, ends := range [][2]*member{{agent, authority}, {authority, agent}} {
			w.directions = append(w.directions, &direction{
				name: ends[0].name + "→" + ends[1].name, from: ends[0], to: ends[1],
				quiet: &w.quiet, ledger: newLedger(), poisoned: make(chan bool, 100),
			})
		}
	}
	for _, m := range w.members {
		w.start(m)
	}
	w.report = newReport()
	return w
}

// startRabbit returns nil if RabbitMQ is not installed.
func startRabbit(t *testing.T) *rabbittest.Server {
	t.Helper()
	s, err := rabbittest.New()
	if errors.Is(err, rabbittest.ErrMissing) {
		t.Logf("skipped: faults of RabbitMQ; the creditors agent has the embedded broker (%v)", err)
		return nil
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Remove(); err != nil {
			t.Error(err)
		}
	})
	if err := s.Start(); err != nil {
		t.Fatal(err)
	}
	return s
}

// add makes a node, without starting it.
func (w *world) add(kind nodetype.Type, rabbit *rabbittest.Server) *member {
	w.t.Helper()
	listen := freeAddress(w.t)
	wire, err := newWire(listen)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(wire.end)
	m := &member{Node: nodetest.New(w.t, kind, wire.addr()), name: kind.Short(), kind: kind, wire: wire, rabbit: rabbit}
	dir := w.t.TempDir()
	m.settings = nodeSettings{
		Dir: m.Path(), Listen: listen, Clock: ahead,
		Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"),
	}
	m.certify(w.t, certificateLife)
	// Paths of Unix sockets must be short.
	if m.settings.State, err = os.MkdirTemp("", "peerlink-fault-"); err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { os.RemoveAll(m.settings.State) })
	if rabbit == nil {
		m.limited = limitDisk(w.t, m.settings.State)
	} else {
		m.settings.Broker = rabbit.URL()
	}
	w.members = append(w.members, m)
	return m
}

// freeAddress returns an unused address that stays unused while its node is down. The
// system gives ports from 32768 on to connections and to listeners that do not name one,
// such as those of RabbitMQ, which listen on all addresses.
func freeAddress(t *testing.T) string {
	t.Helper()
	for {
		l, err := net.Listen("tcp", fmt.Sprintf("127.66.0.1:%d", 10000+rand.IntN(10000)))
		if errors.Is(err, syscall.EADDRINUSE) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		return l.Addr().String()
	}
}

// certificateLife is how long server certificates are valid.
const certificateLife = 365 * 24 * time.Hour

// certify gives a node a new server certificate that is valid for life by the clocks
// of the world, which are a month ahead of the machine's.
func (m *member) certify(t *testing.T, life time.Duration) {
	m.WriteServerCert(t, m.settings.Cert, m.settings.Key, ahead+life)
}

// limitDisk mounts a small file system in place of a folder, if possible.
func limitDisk(t *testing.T, dir string) bool {
	err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=160m,mode=0700")
	if err != nil {
		t.Logf("skipped: full disks (mounting a small tmpfs: %v)", err)
		return false
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return true
}

func (w *world) start(m *member) {
	m.process = startProcess(m.name, m.settings, w.t.Errorf)
	w.t.Cleanup(func() {
		m.process.signal(unix.SIGKILL)
		m.process.end()
	})
}

func (w *world) direction(name string) *direction {
	for _, d := range w.directions {
		if d.name == name {
			return d
		}
	}
	return nil
}

// connect connects an application to the node's broker, for sending or for
// receiving.
func (m *member) connect(ctx context.Context, receive bool) (appConn, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	inbox := ""
	if receive {
		inbox = m.kind.Inbox()
	}
	if m.rabbit != nil {
		return dialAMQP(context.WithoutCancel(ctx), m.rabbit.URL(), inbox)
	}
	return dialDoor(ctx, m.settings.State, inbox)
}

// traffic starts the applications. stop ends the sending ones, waits until all accepted
// messages have arrived and all queues are empty, and ends the others.
func (w *world) traffic(rate int) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	sendCtx, stopSending := context.WithCancel(ctx)
	var senders, receivers sync.WaitGroup
	for _, d := range w.directions {
		senders.Go(func() { d.send(sendCtx, rate) })
	}
	for _, m := range w.members {
		receivers.Go(func() { w.receive(ctx, m) })
	}
	w.t.Cleanup(func() { // also if the test has failed
		cancel()
		senders.Wait()
		receivers.Wait()
	})
	return func() {
		stopSending()
		senders.Wait()
		w.settle()
		cancel()
		receivers.Wait()
	}
}

// within waits until a condition holds, at most for limit, and reports whether it does.
func (w *world) within(limit time.Duration, cond func() bool) bool {
	deadline := time.Now().Add(limit)
	for !cond() {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(2 * time.Millisecond)
	}
	return true
}

func (w *world) sum() figures {
	var all figures
	for _, d := range w.directions {
		all.add(d.ledger.sum())
	}
	return all
}

// settle waits until all messages have arrived. Messages that the applications have
// sent twice may arrive later.
func (w *world) settle() {
	w.within(bound, func() bool { return w.sum().Lost == 0 })
	for _, d := range w.directions {
		w.within(bound, func() bool {
			left, _, err := d.leftovers()
			return err == nil && left == 0
		})
	}
}

// end stops the nodes in good order, checks what is left in their queues, and fails the
// test for every violation.
func (w *world) end() {
	w.t.Helper()
	r := w.report
	for _, m := range w.members {
		m.process.end()
		r.Starts += m.process.starts
		r.FailedStarts += m.process.failed
		r.PeakMemoryMiB = max(r.PeakMemoryMiB, m.process.peak>>10)
	}
	for _, d := range w.directions {
		f := d.ledger.sum()
		r.Messages[d.name] = f
		if f.Lost > 0 || f.Damaged > 0 {
			w.t.Errorf("%s: %d of %d messages lost, damaged: %s", d.name, f.Lost, f.Accepted, d.ledger.damaged)
		}
		left, aside, err := d.leftovers()
		if err != nil || left > 0 {
			w.t.Errorf("%s: %d messages are left in the queue (%v)", d.name, left, err)
		}
		r.SetAside += len(aside)
		if len(aside) < f.Poison { // there may be more: the acceptance of some was not received
			w.t.Errorf("%s: %d messages that must not arrive were accepted, but only %d are set aside", d.name, f.Poison, len(aside))
		}
		for _, body := range aside {
			if !bytes.Contains(body, []byte(poisonText)) {
				w.t.Errorf("%s: a valid message was set aside: %s", d.name, body)
			}
		}
	}
}

// leftovers returns the number of messages in the queue of a direction, and the bodies
// of its dead letters.
func (d *direction) leftovers() (left int, aside [][]byte, err error) {
	queue := "peer." + d.to.Identity().ID + ".0"
	if d.from.rabbit != nil {
		return leftInRabbitMQ(d.from.rabbit.URL(), queue)
	}
	return leftInStore(storePath(d.from.settings.State), queue)
}

func leftInStore(path, queue string) (left int, aside [][]byte, err error) {
	s, err := embedded.Open(path, embedded.Options{})
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	const many = 1_000_000
	messages, err := s.Peek(context.Background(), queue, many)
	if err != nil {
		return 0, nil, err
	}
	for m, err := range s.List(context.Background(), queue) {
		if err != nil {
			return 0, nil, err
		}
		aside = append(aside, m.Body)
	}
	return len(messages), aside, nil
}
