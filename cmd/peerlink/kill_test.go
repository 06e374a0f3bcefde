package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"peerlink/local"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// server is a node with a "peerlink serve" process and a local door for
// applications.
type server struct {
	*nodetest.Node
	t         *testing.T
	addr      string
	state     string
	cert, key string
	broker    []string // flags for another broker than the embedded one
	stderr    *os.File // of the process; by default a file, see log
	process   *exec.Cmd
	exited    chan error
}

func newServer(t *testing.T, kind nodetype.Type) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	s := &server{Node: nodetest.New(t, kind, addr), t: t, addr: addr}
	// Paths of Unix sockets must be short.
	if s.state, err = os.MkdirTemp("", "peerlink-state-"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(s.state) })
	s.cert, s.key = s.ServerCert(t)
	return s
}

func (s *server) start() {
	s.t.Helper()
	s.process = exec.Command(program(s.t), "-C", s.Path(), "serve", "--listen", s.addr, "--server-cert", s.cert, "--server-key", s.key,
		"--state", s.state, "--local-listen", "none")
	s.process.Args = append(s.process.Args, s.broker...)
	log, err := os.OpenFile(filepath.Join(s.state, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		s.t.Fatal(err)
	}
	defer log.Close()
	s.process.Stderr = log
	if s.stderr != nil {
		s.process.Stderr = s.stderr
	}
	if err := s.process.Start(); err != nil {
		s.t.Fatal(err)
	}
	p, exited := s.process, make(chan error, 1)
	s.exited = exited
	go func() { exited <- p.Wait() }()
}

func (s *server) kill() {
	s.process.Process.Kill()
	<-s.exited
}

func (s *server) log() string {
	data, err := os.ReadFile(filepath.Join(s.state, "log"))
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-4000):])
}

// application sends numbered messages to the other node, and collects the messages
// from there. It reconnects until the end of its context whenever the service ends.
type application struct {
	node, peer *server
	other      *application // at the peer
	mu         sync.Mutex
	confirmed  map[int]bool // by number: whether the service has confirmed that the message is stored
	got        map[int]int  // by number: how often the message has arrived
	damaged    []string
	next       int   // the smallest unused number
	again      []int // numbers to send again, since the service may not have stored them
}

func newApplication(node, peer *server) *application {
	return &application{node: node, peer: peer, confirmed: make(map[int]bool), got: make(map[int]int)}
}

// note returns a text that is part of message n, with which a changed message is detected.
func note(n int) string { return fmt.Sprintf("message number %d — ✓ \\ \" \t", n) }

func (a *application) body(n int) (typ string, body []byte) {
	m := map[string]any{
		"debtor_id": int64(0x1234abcd_00_000000 + n), "creditor_id": int64(0x000001_01_00000000), "config_data": note(n),
		"negligible_amount": json.RawMessage("0.5"), "config_flags": 0, "ts": "2026-01-01T00:00:00Z",
	}
	typ = "ConfigureAccount"
	if a.node.Identity().Type == nodetype.AccountingAuthority {
		typ = "RejectedConfig"
		m["config_ts"], m["config_seqnum"], m["rejection_code"] = m["ts"], n, "X"
	} else {
		m["seqnum"] = n
	}
	m["type"] = typ
	body, err := json.Marshal(m)
	if err != nil {
		panic(err)
	}
	return typ, body
}

// dial connects to the service's local door as soon as the service has opened it.
func (a *application) dial(ctx context.Context) (*local.Client, error) {
	for {
		client, err := local.Dial(ctx, a.node.state)
		if err == nil {
			return client, nil
		}
		select {
		case <-ctx.Done():
			return nil, errors.Join(ctx.Err(), err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// maxBehind is the maximum number of messages in transit to the other application.
const maxBehind = 3000

// send sends messages without waiting for the confirmation of each. Messages that were not
// confirmed when a connection broke are sent again, as an application would do.
func (a *application) send(ctx context.Context) {
	own, other := a.node.Identity().Type, a.peer.Identity().Type
	for ctx.Err() == nil {
		client, err := a.dial(ctx)
		if err != nil {
			return
		}
		for err == nil && ctx.Err() == nil {
			n, ok := a.number()
			if !ok {
				time.Sleep(time.Millisecond) // wait for the other application
				continue
			}
			typ, body := a.body(n)
			key := smp.OutgoingRoutingKey(own, other, int64(0x1234abcd_00_000000+n), 0x000001_01_00000000)
			err = client.Send(ctx, own.Outbox(other), key, typ, body, func(err error) { a.settle(n, err) })
			if err != nil {
				a.settle(n, err)
			}
		}
		client.Close()
	}
}

// number returns the number of the next message to send. ok is false if maxBehind messages
// are in transit.
func (a *application) number() (n int, ok bool) {
	_, got := a.other.counts()
	a.mu.Lock()
	defer a.mu.Unlock()
	switch {
	case len(a.again) > 0:
		n, a.again = a.again[0], a.again[1:]
		return n, true
	case a.next-got < maxBehind:
		a.next++
		return a.next - 1, true
	}
	return 0, false
}

// settle records whether the service has confirmed a message.
func (a *application) settle(n int, err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if err == nil {
		a.confirmed[n] = true
	} else {
		a.again = append(a.again, n)
	}
}

// receive takes messages out of the inbox.
func (a *application) receive(ctx context.Context) {
	for ctx.Err() == nil {
		client, err := a.dial(ctx)
		if err != nil {
			return
		}
		sub, err := client.Subscribe(ctx, "/queue/"+a.node.Identity().Type.Inbox(), 500, local.AckIndividual)
		for err == nil {
			var m local.Message
			if m, err = sub.Next(ctx); err == nil {
				a.take(m)
				err = sub.Ack(m)
			}
		}
		client.Close()
	}
}

func (a *application) take(m local.Message) {
	var body struct {
		Debtor int64  `json:"debtor_id"`
		Data   string `json:"config_data"`
	}
	err := json.Unmarshal(m.Body, &body)
	n := int(body.Debtor - 0x1234abcd_00_000000)
	a.mu.Lock()
	defer a.mu.Unlock()
	if err != nil || body.Data != note(n) {
		a.damaged = append(a.damaged, string(m.Body))
	}
	a.got[n]++
}

func (a *application) counts() (confirmed, got int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.confirmed), len(a.got)
}

// missing returns the number of messages that were confirmed to from and have not arrived
// at a.
func (a *application) missing(from *application) int {
	from.mu.Lock()
	defer from.mu.Unlock()
	a.mu.Lock()
	defer a.mu.Unlock()
	missing := 0
	for n := range from.confirmed {
		if a.got[n] == 0 {
			missing++
		}
	}
	return missing
}

// traffic is messages in both directions between the applications of two servers.
type traffic struct {
	t                  *testing.T
	servers            []*server
	apps               []*application
	ctx, sending       context.Context    // sending ends first, and ctx when all messages have arrived
	cancel, stop       context.CancelFunc // of ctx and of sending
	senders, receivers sync.WaitGroup
}

// startTraffic starts to send and receive messages, for at most two minutes.
func startTraffic(t *testing.T, one, other *server) *traffic {
	tr := &traffic{t: t, servers: []*server{one, other}, apps: []*application{newApplication(one, other), newApplication(other, one)}}
	tr.apps[0].other, tr.apps[1].other = tr.apps[1], tr.apps[0]
	tr.ctx, tr.cancel = context.WithTimeout(context.Background(), 2*time.Minute)
	tr.sending, tr.stop = context.WithCancel(tr.ctx)
	for _, a := range tr.apps {
		tr.senders.Go(func() { a.send(tr.sending) })
		tr.receivers.Go(func() { a.receive(tr.ctx) })
	}
	return tr
}

// await waits until done returns true.
func (tr *traffic) await(what string, done func() bool) {
	tr.t.Helper()
	for !done() {
		select {
		case <-tr.ctx.Done():
			tr.t.Fatalf("%s: does not happen\n%s\n%s", what, tr.servers[0].log(), tr.servers[1].log())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// finish ends the sending, waits until all messages have arrived, and ends the receiving.
func (tr *traffic) finish() {
	tr.t.Helper()
	tr.stop()
	tr.senders.Wait()
	tr.await("the arrival of the last message", func() bool {
		return tr.apps[0].missing(tr.apps[1])+tr.apps[1].missing(tr.apps[0]) == 0
	})
	tr.cancel()
	tr.receivers.Wait()
}

// Every message that a service has confirmed to its application reaches the
// application on the other side unchanged, although both services are killed
// repeatedly while messages are in transit.
func TestKillUnderLoad(t *testing.T) {
	t.Parallel()
	const kills = 12
	authority, agent := newServer(t, nodetype.AccountingAuthority), newServer(t, nodetype.CreditorsAgent)
	nodetest.Peer(t, authority.Node, agent.Node)
	servers := []*server{authority, agent}
	for _, s := range servers {
		s.start()
		defer func() { s.kill() }()
	}
	traffic := startTraffic(t, authority, agent)
	defer traffic.cancel()
	apps := traffic.apps
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	for range kills {
		// Messages have arrived in both directions before each kill.
		for _, a := range apps {
			_, before := a.counts()
			more := 1 + random.IntN(300)
			traffic.await("messages after a kill", func() bool { _, got := a.counts(); return got >= before+more })
		}
		victim := servers[random.IntN(2)]
		victim.kill()
		victim.start()
	}
	traffic.finish()
	for i, a := range apps {
		confirmed, _ := apps[1-i].counts()
		repeated := 0
		for _, n := range a.got {
			repeated += n - 1
		}
		t.Logf("%s → %s: %d confirmed to the sender, all delivered, %d repeated", a.peer.Identity().Type.Short(), a.node.Identity().Type.Short(), confirmed, repeated)
		if len(a.damaged) > 0 {
			t.Errorf("%d messages have changed on the way, for example %s", len(a.damaged), a.damaged[0])
		}
	}
}
