// Package linktest runs nodes with their stores and link services inside a
// test: real TLS over loopback, real SQLite or RabbitMQ.
package linktest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// Timeout is how long a test waits for an expected event.
const Timeout = time.Minute

// Node is a node with a message store and, once started, a link service.
type Node struct {
	*nodetest.Node
	Addr              string          // where its service listens
	CertFile, KeyFile string          // files of its server certificate
	Config            link.Config     // of the next service, without what Start sets
	Store             *embedded.Store // nil with any other broker
	StorePath         string          // the file of Store
	Log               *Log
	Wrap              func(net.Listener) net.Listener // wraps the listener of the next service; may be nil
	Service           *link.Service                   // the service started last
	Stop              func() error                    // stops the service
	apps              apps
	t                 testing.TB
}

// New returns a node with an address on loopback and the embedded broker.
func New(t testing.TB, kind nodetype.Type) *Node {
	t.Helper()
	return NewOn(t, kind, Embedded)
}

// NewOn returns a node with an address on loopback and the broker that on gives it.
func NewOn(t testing.TB, kind nodetype.Type, on BrokerSetup) *Node {
	t.Helper()
	n := &Node{t: t, Addr: FreeAddress(t), Log: new(Log)}
	n.Node = nodetest.New(t, kind, n.Addr)
	n.CertFile, n.KeyFile = n.ServerCert(t)
	// Short times for tests.
	n.Config = link.Config{
		PollInterval:    20 * time.Millisecond,
		RetryMin:        5 * time.Millisecond,
		RetryMax:        100 * time.Millisecond,
		StandbyInterval: 50 * time.Millisecond,
		DrainedAfter:    100 * time.Millisecond,
		DrainPause:      200 * time.Millisecond,
	}
	on(t, n)
	return n
}

// FreeAddress returns an unused address on loopback, a different one each time. Its
// port is below the ephemeral ports, one of which could use it while a service is
// restarted.
func FreeAddress(t testing.TB) string {
	t.Helper()
	for range 1000 {
		addr := fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000))
		if _, given := addresses.LoadOrStore(addr, true); given {
			continue
		}
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no free port from 10000 to 29999")
	return ""
}

// addresses are the results of FreeAddress.
var addresses sync.Map

// Pair makes two nodes that are peers, with embedded brokers, and starts their
// services.
func Pair(t testing.TB, agent nodetype.Type) (authority, other *Node) {
	t.Helper()
	return PairOn(t, agent, Embedded, Embedded)
}

// PairOn makes two nodes that are peers, and starts their services.
func PairOn(t testing.TB, agent nodetype.Type, authorityOn, otherOn BrokerSetup) (authority, other *Node) {
	t.Helper()
	authority, other = NewOn(t, nodetype.AccountingAuthority, authorityOn), NewOn(t, agent, otherOn)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	other.Start()
	return authority, other
}

// WriteStompTOML writes the node's stomp.toml with these servers. Peers learn of it from the
// next info-bundle.
func (n *Node) WriteStompTOML(servers ...string) {
	n.t.Helper()
	file := filepath.Join(n.Path(), "nodeinfo", "stomp.toml")
	if err := os.WriteFile(file, node.EncodeStompTOML(n.Identity().Type, servers), 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// Start starts the node's link service. The test stops it when it ends, unless it is
// stopped before.
func (n *Node) Start() {
	n.t.Helper()
	listener, err := net.Listen("tcp", n.Addr)
	if err != nil {
		n.t.Fatal(err)
	}
	if n.Wrap != nil {
		listener = n.Wrap(listener)
	}
	cert, err := link.LoadCertificate(n.Dir, n.CertFile, n.KeyFile)
	if err != nil {
		n.t.Fatal(err)
	}
	cfg := n.Config
	cfg.Dir, cfg.Certificate, cfg.Log = n.Dir, cert, n.Log.Logger()
	s := link.New(cfg)
	n.Service = s
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, listener) }()
	stop := sync.OnceValue(func() error { cancel(); return <-done })
	n.Stop = stop
	n.t.Cleanup(func() {
		if err := stop(); err != nil {
			n.t.Errorf("%v: the service ended with %v", n.Identity(), err)
		}
	})
}

// Message returns the n-th message from one node to another, with a timestamp by the
// clock of the first. Its config_data is the text "number n".
func Message(t testing.TB, from, to *Node, n int) broker.Outgoing {
	t.Helper()
	debtor, creditor := int64(0x1234abcd_00_000000+n), int64(0)
	if from.Identity().Type == nodetype.CreditorsAgent || to.Identity().Type == nodetype.CreditorsAgent {
		creditor = 0x000001_01_00000000
	}
	now := time.Now
	if from.Config.Now != nil {
		now = from.Config.Now
	}
	fields := map[string]any{
		"debtor_id": debtor, "creditor_id": creditor, "ts": now().UTC().Format(time.RFC3339), "config_data": fmt.Sprint("number ", n),
		"negligible_amount": json.RawMessage("0.5"), "config_flags": 0,
	}
	typ := "ConfigureAccount"
	if from.Identity().Type == nodetype.AccountingAuthority {
		typ = "RejectedConfig"
		fields["config_ts"], fields["config_seqnum"], fields["rejection_code"] = fields["ts"], n, "X"
	} else {
		fields["seqnum"] = n
	}
	fields["type"] = typ
	body, err := json.Marshal(fields)
	if err != nil {
		t.Fatal(err)
	}
	return broker.Outgoing{Type: typ, ContentType: "application/json", Body: body}
}

// QueueTo returns the name of the first queue that leads to a node.
func QueueTo(n *Node) string { return "peer." + n.Identity().ID + ".0" }

// Put puts messages into the queues that lead to a node. It waits until the node's
// service has declared these queues.
func (n *Node) Put(to *Node, messages ...broker.Outgoing) {
	n.t.Helper()
	Eventually(n.t, "the queue to "+to.Identity().String(), func() error {
		return n.apps.put(context.Background(), to, messages)
	})
}

// Take reads messages from the node's inbox and removes them, until there are count
// distinct ones. It returns them by their config_data.
func (n *Node) Take(count int) map[string]broker.Incoming {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	got := make(map[string]broker.Incoming)
	err := n.apps.take(ctx, n.Identity().Type.Inbox(), func(m broker.Incoming) bool {
		var body struct {
			Data string `json:"config_data"`
		}
		if err := json.Unmarshal(m.Body, &body); err != nil {
			n.t.Error(err)
		}
		got[body.Data] = m
		return len(got) < count
	})
	if err != nil {
		n.t.Fatalf("%v has %d of %d messages: %v\n%s", n.Identity(), len(got), count, err, n.Log)
	}
	return got
}

// TakeEach reads count messages from the node's inbox, distinct or not, and removes
// them.
func (n *Node) TakeEach(count int) (messages []broker.Incoming) {
	n.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), Timeout)
	defer cancel()
	err := n.apps.take(ctx, n.Identity().Type.Inbox(), func(m broker.Incoming) bool {
		messages = append(messages, m)
		return len(messages) < count
	})
	if err != nil {
		n.t.Fatalf("%v has %d of %d messages: %v\n%s", n.Identity(), len(messages), count, err, n.Log)
	}
	return messages
}

// WaitDrained waits until the queue that leads to a node is empty, and has deadLetters dead
// letters. It returns their reasons.
func (n *Node) WaitDrained(to *Node, deadLetters int) (reasons []string) {
	n.t.Helper()
	Eventually(n.t, "emptying the queue to "+to.Identity().String(), func() error {
		waiting, why, err := n.apps.remaining(context.Background(), QueueTo(to))
		if err == nil && (waiting > 0 || len(why) != deadLetters) {
			err = fmt.Errorf("%d messages are left; the reasons of the dead letters are %q", waiting, why)
		}
		reasons = why
		return err
	})
	return reasons
}

// Aside returns the reasons of the dead letters in a queue.
func (n *Node) Aside(queue string) []string {
	n.t.Helper()
	_, reasons, err := n.apps.remaining(context.Background(), queue)
	if err != nil && !errors.Is(err, broker.ErrNoQueue) {
		n.t.Fatal(err)
	}
	return reasons
}

// Eventually retries until do succeeds.
func Eventually(t testing.TB, what string, do func() error) {
	t.Helper()
	deadline := time.Now().Add(Timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 16*time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
		time.Sleep(pause)
	}
}

// Log holds what a service logs, for assertions.
type Log struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

// Logger returns a logger that writes to the log.
func (l *Log) Logger() *slog.Logger { return slog.New(slog.NewTextHandler(l, nil)) }

func (l *Log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *Log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}
