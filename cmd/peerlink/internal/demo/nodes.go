package demo

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"peerlink/node"
	"peerlink/node/nodetype"
)

// demoNode is one node of the demo: a directory, a state folder, a process.
type demoNode struct {
	*run
	kind  nodetype.Type
	dir   string
	state string
	log   string // file of the service's log, in JSON
	addr  string // address on which the service listens for peers
	id    string
	moves int // number of changes of the address and the server key

	mu      sync.Mutex // guards the following fields
	process *exec.Cmd  // nil while the service is intentionally down
	exited  chan error // receives the result when the process has exited
}

// name returns the name of the node in tables.
func (n *demoNode) name() string { return n.kind.Short() }

// file returns the path of a file beside the node's directory. Its name contains, for %d in format,
// the number of moves.
func (n *demoNode) file(format string) string {
	return fmt.Sprintf("%s-%s", n.dir, fmt.Sprintf(format, n.moves))
}
func (n *demoNode) bundle() string     { return n.file("%d.zip") }
func (n *demoNode) serverKey() string  { return n.file("server-%d.key") }
func (n *demoNode) serverCert() string { return n.file("server-%d.crt") }

// make makes the node, its server certificate and its info-bundle.
func (n *demoNode) make(ctx context.Context) error {
	args := []string{"init", n.kind.String(), "--bare", "--server", n.addr, "--passphrase-file", n.passphrase}
	if n.kind == nodetype.AccountingAuthority {
		args = append(args, "--id", authorityID)
	}
	out, err := n.command(ctx, args...)
	if err != nil {
		return err
	}
	n.id = strings.TrimSpace(out)
	return n.makeCertAndBundle(ctx)
}

// makeCertAndBundle makes a new server key with its certificate, and a new info-bundle.
func (n *demoNode) makeCertAndBundle(ctx context.Context) error {
	if _, err := n.command(ctx, "server-cert", "issue", "--passphrase-file", n.passphrase, n.serverKey(), n.serverCert()); err != nil {
		return err
	}
	_, err := n.command(ctx, "bundle", "create", "--passphrase-file", n.passphrase, n.bundle())
	return err
}

// fingerprint returns the fingerprint of the node's root key, as displayed to its operator.
func (n *demoNode) fingerprint(ctx context.Context) (string, error) {
	out, err := n.command(ctx, "bundle", "inspect", "--json", n.bundle())
	if err != nil {
		return "", err
	}
	var bundle struct{ Fingerprint string }
	err = json.Unmarshal([]byte(out), &bundle)
	return bundle.Fingerprint, err
}

// command runs one of peerlink's commands on the node's directory.
func (n *demoNode) command(ctx context.Context, args ...string) (stdout string, err error) {
	c := exec.CommandContext(ctx, n.Binary, append([]string{"-C", n.dir}, args...)...)
	c.Env = cleanEnv()
	var out, errOut bytes.Buffer
	c.Stdout, c.Stderr = &out, &errOut
	if err := c.Run(); err != nil {
		return "", fmt.Errorf("peerlink %s %s: %w\n%s", args[0], args[1], err, strings.TrimSpace(errOut.String()))
	}
	return out.String(), nil
}

// cleanEnv returns the environment without variables that configure a real node.
func cleanEnv() []string {
	var env []string
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "PEERLINK_") && !strings.HasPrefix(v, "SWPT_") && !strings.HasPrefix(v, "APP_LOG_") && !strings.HasPrefix(v, "PROTOCOL_BROKER_URL=") {
			env = append(env, v)
		}
	}
	return env
}

// start starts the node's service.
func (n *demoNode) start(ctx context.Context) error {
	log, err := os.OpenFile(n.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	c := exec.Command(n.Binary, "-C", n.dir, "serve", "--listen", n.addr,
		"--server-cert", n.serverCert(), "--server-key", n.serverKey(),
		"--state", n.state, "--local-listen", "127.0.0.1:0", "--log-format", "json")
	c.Env = cleanEnv()
	c.Stderr = log
	if err := c.Start(); err != nil {
		return err
	}
	exited := make(chan error, 1)
	go func() { exited <- c.Wait() }()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.process, n.exited = c, exited
	// The service is up when its local door is open, for which the applications wait.
	return nil
}

// markDown marks the service as intentionally down, and returns its process and the channel that
// receives the process's result.
func (n *demoNode) markDown() (process *exec.Cmd, exited chan error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	process, exited = n.process, n.exited
	n.process = nil
	return process, exited
}

// kill kills the service.
func (n *demoNode) kill() error {
	process, exited := n.markDown()
	if process == nil {
		return nil
	}
	err := process.Process.Kill()
	<-exited
	return err
}

// stop shuts the service down gracefully, and fails if the service does not exit successfully.
func (n *demoNode) stop(ctx context.Context) error {
	process, exited := n.markDown()
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		process.Process.Kill() // the system has no signals
		<-exited
		return nil
	}
	killLater := time.AfterFunc(20*time.Second, func() { process.Process.Kill() })
	defer killLater.Stop()
	defer context.AfterFunc(ctx, func() { process.Process.Kill() })()
	if err := <-exited; err != nil {
		return fmt.Errorf("the %s's service did not stop in good order: %w\n%s", n.kind, err, tailOf(n.log))
	}
	return nil
}

// checkPeersActive returns an error if the service has not made its queues to a peer yet.
func (n *demoNode) checkPeersActive() error {
	d, err := node.Open(n.dir)
	if err != nil {
		return err
	}
	ids, err := d.PeerIDs()
	if err != nil {
		return err
	}
	for _, id := range ids {
		if _, err := os.Stat(filepath.Join(n.dir, "peers", id, "ACTIVE")); err != nil {
			return fmt.Errorf("peer %s is not active yet: %w", id, err)
		}
	}
	return nil
}

// checkAlive returns an error if the service has exited unexpectedly.
func (n *demoNode) checkAlive() error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.process == nil {
		return nil
	}
	select {
	case err := <-n.exited:
		n.exited <- err
		return fmt.Errorf("the %s's service has ended: %v\n%s", n.kind, err, tailOf(n.log))
	default:
		return nil
	}
}

// tailOf returns the last 2000 bytes of a log.
func tailOf(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// freeAddress returns a loopback address with an unused port.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// readChains reads the verified certificate chains, and counts the connections, from the services'
// logs.
func (d *run) readChains(res *Result) error {
	byID := make(map[string]*demoNode)
	for _, n := range d.nodes {
		byID[n.id] = n
	}
	for _, n := range d.nodes {
		f, err := os.Open(filepath.Clean(n.log))
		if err != nil {
			return err
		}
		defer f.Close()
		lines := bufio.NewScanner(f)
		for lines.Scan() {
			var event struct{ Msg, Peer, Chain string }
			if json.Unmarshal(lines.Bytes(), &event) != nil || event.Chain == "" || byID[event.Peer] == nil {
				continue
			}
			for i := range res.Links {
				l := &res.Links[i]
				switch peer := byID[event.Peer].name(); {
				case event.Msg == "sending" && l.From == n.name() && l.To == peer:
					l.SenderVerified, l.Dials = event.Chain, l.Dials+1
				case event.Msg == "receiving" && l.To == n.name() && l.From == peer:
					l.ReceiverVerified = event.Chain
				}
			}
		}
		if err := lines.Err(); err != nil {
			return err
		}
	}
	return nil
}
