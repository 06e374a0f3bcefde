package main

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/local"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/smp"
)

// swptNode is a node that runs like the reference implementation: with a separate process
// for each task, configured by environment variables.
type swptNode struct {
	*server
	links string // folder with a link to the program for each of the four commands
	url   string // of RabbitMQ
}

func newSwptNode(t *testing.T, kind nodetype.Type, url string) *swptNode {
	t.Helper()
	n := &swptNode{newServer(t, kind), t.TempDir(), url}
	program, err := filepath.Abs(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"swpt-server", "swpt-client", "swpt-drainer", "configure-queue"} {
		if err := os.Symlink(program, filepath.Join(n.links, name)); err != nil {
			t.Fatal(err)
		}
	}
	return n
}

// command prepares the command args[0], which is run through its link.
func (n *swptNode) command(args ...string) *exec.Cmd {
	c := exec.Command(filepath.Join(n.links, args[0]), args[1:]...)
	_, port, _ := net.SplitHostPort(n.addr)
	c.Env = append(os.Environ(), runMain+"=1", "SWPT_SERVER_PORT="+port, "SWPT_SERVER_CERT="+n.cert, "SWPT_SERVER_KEY="+n.key,
		"SWPT_NODEDATA_URL=file://"+n.Path(), "PROTOCOL_BROKER_URL="+n.url, "APP_LOG_FORMAT=json", "APP_LOG_LEVEL=")
	return c
}

// running is a process that has been started.
type running struct {
	*exec.Cmd
	t      *testing.T
	output *lockedBuffer
	exited chan struct{}
}

func (n *swptNode) start(args ...string) *running {
	n.t.Helper()
	return start(n.t, n.command(args...))
}

func start(t *testing.T, c *exec.Cmd) *running {
	t.Helper()
	p := &running{c, t, new(lockedBuffer), make(chan struct{})}
	p.Stdout, p.Stderr = p.output, p.output
	if err := p.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		_ = p.Wait() // see code
	}()
	t.Cleanup(func() { p.Process.Kill(); <-p.exited })
	return p
}

// code waits for the end of the process, and returns its exit code.
func (p *running) code() int {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(30 * time.Second):
		p.t.Fatalf("%s does not end:\n%s", p.Args, p.output)
	}
	return p.ProcessState.ExitCode()
}

// says waits until the output of the process contains a text.
func (p *running) says(text string) {
	p.t.Helper()
	until(p.t, fmt.Sprintf("%q from %s", text, p.Args), func() error {
		if !strings.Contains(p.output.String(), text) {
			return errors.New(p.output.String())
		}
		return nil
	})
}

// lockedBuffer is a [strings.Builder] that can be read while it is written.
type lockedBuffer struct {
	mu  sync.Mutex
	buf strings.Builder
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// until calls do repeatedly until it succeeds. what describes the awaited event.
func until(t *testing.T, what string, do func() error) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		err := do()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: %v", what, err)
		}
	}
}

// Two nodes exchange messages if they run only the reference's four commands, configured as
// in the reference's Compose files, which also mount the root key. The commands start and end
// as those of the reference do: a client ends when its connection ends, and is started again;
// a second client waits for the end of the first; no message is sent to a peer that is not
// active; and the queue of a deactivated peer is drained completely, although the drainer is
// killed.
func TestSwptCommands(t *testing.T) {
	rabbit := rabbittest.Get(t)
	authority := newSwptNode(t, nodetype.AccountingAuthority, rabbit.URL())
	agent := newSwptNode(t, nodetype.CreditorsAgent, rabbit.URL())
	nodetest.Peer(t, authority.Node, agent.Node)
	at, far := newApplication(authority.server, agent.server), newApplication(agent.server, authority.server)
	at.other, far.other = far, at
	ids := map[*swptNode]string{authority: agent.Identity().ID, agent: authority.Identity().ID} // the peer's
	conn, err := amqp.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	forgetAgents(t, conn)
	for _, n := range []*swptNode{authority, agent} {
		declareInbox(t, conn, n.Identity().Type.Inbox())
	}

	for n, peer := range ids {
		publishRootKey(t, n)
		configure := n.start("configure-queue", peer, "to."+peer)
		if code := configure.code(); code != 0 {
			t.Fatalf("configure-queue ends with %d:\n%s", code, configure.output)
		}
		early := n.start("swpt-client", peer, "to."+peer)
		if code := early.code(); code != 1 || !strings.Contains(early.output.String(), "not active") {
			t.Errorf("client of a peer that is not active ends with %d:\n%s", code, early.output)
		}
		if err := n.MarkActive(peer); err != nil {
			t.Fatal(err)
		}
	}
	serverOf := make(map[*swptNode]*running)
	client := make(map[*swptNode]*running)
	for n := range ids {
		serverOf[n] = n.start("swpt-server")
		serverOf[n].says("other users can read the root key")
		serverOf[n].says(`"levelname":"WARNING"`)
		serverOf[n].says(`"levelname":"INFO"`)
	}
	for n, peer := range ids {
		client[n] = n.start("swpt-client", peer, "to."+peer)
	}

	// Messages in both directions.
	const count = 500
	publishFrom(t, conn, far, 0, count)
	publishFrom(t, conn, at, 0, count)
	takeAll(t, conn, at, count)
	takeAll(t, conn, far, count)

	// The second client of a queue waits until the first has ended.
	toAgent := ids[authority]
	second := authority.start("swpt-client", toAgent, "to."+toAgent)
	second.says("standing by")
	client[authority].Process.Kill()
	second.says(`"message":"sending"`)
	publishFrom(t, conn, at, count, count)
	takeAll(t, conn, far, 2*count)

	// A server ends normally, and so does the client that was connected with it.
	if err := serverOf[agent].Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := serverOf[agent].code(); code != 0 {
		t.Errorf("the server ends with %d:\n%s", code, serverOf[agent].output)
	}
	if code := second.code(); code != 1 {
		t.Errorf("the client ends with %d:\n%s", code, second.output)
	}

	// After the deactivation of the peer, the client ends, and the messages left in the queue
	// are answered.
	toAuthority := ids[agent]
	if _, err := agent.DeactivatePeer(context.Background(), toAuthority); err != nil {
		t.Fatal(err)
	}
	if code := client[agent].code(); code != 1 || !strings.Contains(client[agent].output.String(), "has been deactivated") {
		t.Errorf("the client ends with %d:\n%s", code, client[agent].output)
	}
	const left = 3000
	publishFrom(t, conn, far, count, left)
	for _, args := range [][]string{{"configure-queue", toAuthority, "late"}, {"swpt-client", toAuthority, "to." + toAuthority}} {
		p := agent.start(args...)
		if code := p.code(); code != 1 || !strings.Contains(p.output.String(), "deactivated") {
			t.Errorf("%s ends with %d:\n%s", args, code, p.output)
		}
	}
	answered := newApplication(agent.server, authority.server)
	drainer := agent.start("swpt-drainer", toAuthority, "to."+toAuthority)
	takeAll(t, conn, answered, 1)
	drainer.Process.Kill()
	drainer = agent.start("swpt-drainer", toAuthority, "to."+toAuthority)
	takeAll(t, conn, answered, left)
	for n := range answered.got {
		if n < count {
			t.Errorf("message %d was sent before the deactivation, but is answered", n)
		}
	}
	if err := drainer.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := drainer.code(); code != 0 || !strings.Contains(drainer.output.String(), `"answered":`) {
		t.Errorf("the drainer ends with %d:\n%s", code, drainer.output)
	}
}

// publishRootKey writes the node's encrypted root key to the file in which the reference's
// scripts keep it, with the mode that the file has in a Git clone.
func publishRootKey(t *testing.T, n *swptNode) {
	t.Helper()
	key, err := pki.EncodeEncryptedKey(n.Key, []byte("correct horse battery staple"))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Dir(n.DefaultKeyFile()), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(n.DefaultKeyFile(), key, 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(n.DefaultKeyFile(), 0o644); err != nil {
		t.Fatal(err)
	}
}

func declareInbox(t *testing.T, conn *amqp.Connection, inbox string) {
	t.Helper()
	ch := channel(t, conn)
	defer ch.Close()
	if err := ch.ExchangeDeclare(inbox, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := ch.QueueDeclare(inbox, true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(inbox, "#", inbox, false, nil); err != nil {
		t.Fatal(err)
	}
}

// publishFrom publishes count messages of an application, whose numbers begin with first.
func publishFrom(t *testing.T, conn *amqp.Connection, from *application, first, count int) {
	t.Helper()
	ch := channel(t, conn)
	defer ch.Close()
	own, peer := from.node.Identity().Type, from.peer.Identity().Type
	for n := first; n < first+count; n++ {
		typ, body := from.body(n)
		key := smp.OutgoingRoutingKey(own, peer, int64(0x1234abcd_00_000000+n), 0x000001_01_00000000)
		err := ch.PublishWithContext(context.Background(), own.Outbox(peer), key, true, false, amqp.Publishing{
			DeliveryMode: amqp.Persistent, Type: typ, ContentType: "application/json", Body: body,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// takeAll takes messages out of an application's inbox until the application has received
// count different messages.
func takeAll(t *testing.T, conn *amqp.Connection, to *application, count int) {
	t.Helper()
	ch := channel(t, conn)
	defer ch.Close()
	deliveries, err := ch.Consume(to.node.Identity().Type.Inbox(), "", false, false, false, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	timeout := time.After(30 * time.Second)
	for _, got := to.counts(); got < count; _, got = to.counts() {
		select {
		case d := <-deliveries:
			to.take(local.Message{Body: d.Body})
			if err := d.Ack(false); err != nil {
				t.Fatal(err)
			}
		case <-timeout:
			t.Fatalf("%d of %d messages have arrived", got, count)
		}
	}
	if len(to.damaged) > 0 {
		t.Errorf("%d messages have changed on the way, for example %s", len(to.damaged), to.damaged[0])
	}
}

// The exit code after wrong usage, by an option or by an environment variable, is 64, or 2 for
// configure-queue, which is not a service. The exit code after any other failure is 1. The
// output names the cause.
func TestSwptUsage(t *testing.T) {
	t.Parallel()
	n := newSwptNode(t, nodetype.CreditorsAgent, "amqp://guest:secret@127.0.0.1:1")
	for _, tt := range []struct {
		name string
		args []string
		env  string
		code int
		want string
	}{
		{"help", []string{"swpt-client", "--help"}, "", 0, "SWPT_CLIENT_BUFFER"},
		{"missing argument", []string{"swpt-client", "1234abcd"}, "", 64, "arguments are missing"},
		{"surplus argument", []string{"swpt-server", "1234abcd"}, "", 64, "1234abcd"},
		{"unknown option", []string{"swpt-server", "-x"}, "", 64, "-x"},
		{"no port", []string{"swpt-server", "-p", "http"}, "", 64, "http"},
		{"no port in the environment", []string{"swpt-server"}, "SWPT_SERVER_PORT=http", 64, "SWPT_SERVER_PORT"},
		{"impossible port", []string{"swpt-server", "-p", "65536"}, "", 64, "65536"},
		{"negative buffer", []string{"swpt-drainer", "1234abcd", "q", "-B", "-1"}, "", 64, "-1"},
		{"log level", []string{"swpt-server", "-l", "fatal"}, "", 64, "fatal"},
		{"log format", []string{"swpt-server", "-f", "xml"}, "", 64, "xml"},
		{"time limit", []string{"swpt-server"}, "APP_SSL_HANDSHAKE_TIMEOUT=soon", 64, "APP_SSL_HANDSHAKE_TIMEOUT"},
		{"no directory", []string{"swpt-server", "-n", "http://localhost/"}, "", 64, "--nodedata-url"},
		{"no broker", []string{"swpt-server", "-u", "http://localhost/"}, "", 64, "amqp://"},
		{"no service", []string{"configure-queue", "1234abcd"}, "", 2, "arguments are missing"},
		{"empty directory", []string{"swpt-server", "-n", "file://" + t.TempDir()}, "", 1, "db/nodetype"},
		{"no key", []string{"swpt-server", "-k", "none.key"}, "", 1, "none.key"},
		{"unknown peer", []string{"swpt-client", "1234abcd", "q"}, "", 1, "1234abcd"},
		{"drain an unknown peer", []string{"swpt-drainer", "1234abcd", "q"}, "", 1, "1234abcd"},
		{"queue of an unknown peer", []string{"configure-queue", "1234abcd", "q"}, "", 1, "1234abcd"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := n.command(tt.args...)
			if tt.env != "" {
				c.Env = append(c.Env, tt.env)
			}
			out, err := c.CombinedOutput()
			if c.ProcessState == nil {
				t.Fatal(err)
			}
			if code := c.ProcessState.ExitCode(); code != tt.code || !strings.Contains(string(out), tt.want) {
				t.Errorf("exit code %d, want %d with %q:\n%s", code, tt.code, tt.want, out)
			}
			if strings.Contains(string(out), "secret@") {
				t.Errorf("the password is shown:\n%s", out)
			}
		})
	}
}
