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

	"peerlink/node/nodetype"
)

// demoNode is one node of the demo: a directory, a state folder, a process.
type demoNode struct {
	*run
	kind  nodetype.Type
	dir   string
	state string
	log   string // what the service says, in JSON
	addr  string // where it listens for peers
	id    string
	moves int // how often it has got a new address and server key

	mu      sync.Mutex // guards what follows
	process *exec.Cmd  // nil while the service is meant to be down
	exited  chan error
}

// name is how tables call the node.
func (n *demoNode) name() string { return n.kind.Short() }

func (n *demoNode) file(format string) string {
	return fmt.Sprintf("%s-%s", n.dir, fmt.Sprintf(format, n.moves))
}
func (n *demoNode) bundle() string     { return n.file("%d.zip") }
func (n *demoNode) serverKey() string  { return n.file("server-%d.key") }
func (n *demoNode) serverCert() string { return n.file("server-%d.crt") }

// make makes the node and what it shows to others.
func (n *demoNode) make(ctx context.Context) error {
	args := []string{"init", n.kind.String(), "--server", n.addr, "--passphrase-file", n.passphrase}
	if n.kind == nodetype.AccountingAuthority {
		args = append(args, "--id", authorityID)
	}
	out, err := n.command(ctx, args...)
	if err != nil {
		return err
	}
	n.id = strings.TrimSpace(out)
	return n.certify(ctx)
}

// certify makes a new server key with its certificate, and a new info-bundle.
func (n *demoNode) certify(ctx context.Context) error {
	if _, err := n.command(ctx, "server-cert", "issue", "--passphrase-file", n.passphrase, n.serverKey(), n.serverCert()); err != nil {
		return err
	}
	_, err := n.command(ctx, "bundle", "create", "--passphrase-file", n.passphrase, n.bundle())
	return err
}

// fingerprint is that of the node's root key, as its owner can read it.
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

// cleanEnv is the environment without settings that are meant for a real node.
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
	// It is up when its door opens; the applications wait for that.
	return nil
}

// down says that the service is meant to be down from now on, and returns what
// is left of it.
func (n *demoNode) down() (process *exec.Cmd, exited chan error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	process, exited = n.process, n.exited
	n.process = nil
	return process, exited
}

// kill ends the service without any warning.
func (n *demoNode) kill() error {
	process, exited := n.down()
	if process == nil {
		return nil
	}
	err := process.Process.Kill()
	<-exited
	return err
}

// stop ends the service in good order, and checks that it was.
func (n *demoNode) stop(ctx context.Context) error {
	process, exited := n.down()
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		process.Process.Kill() // a system without signals
		<-exited
		return nil
	}
	giveUp := time.AfterFunc(20*time.Second, func() { process.Process.Kill() })
	defer giveUp.Stop()
	defer context.AfterFunc(ctx, func() { process.Process.Kill() })()
	if err := <-exited; err != nil {
		return fmt.Errorf("the %s's service did not stop in good order: %w\n%s", n.kind, err, tailOf(n.log))
	}
	return nil
}

// alive returns an error when the service has ended by itself.
func (n *demoNode) alive() error {
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

// tailOf returns the end of a log.
func tailOf(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	return string(data[max(0, len(data)-2000):])
}

// freeAddress finds a port on loopback where nobody listens.
func freeAddress() (string, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	defer l.Close()
	return l.Addr().String(), nil
}

// readChains finds in the services' logs which chains they have verified.
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
