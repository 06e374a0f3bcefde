// Package demo demonstrates links on one machine. It makes an accounting authority, a
// creditors agent and a debtors agent with peerlink's own commands, makes them peers, and
// starts "peerlink serve" for each. Small applications exchange SMP messages over the links.
// Meanwhile the accounting authority's service is killed and moved to another address.
//
// Each sent and each delivered message is recorded ([deliveries]), so that "lost: 0" is a
// measurement.
package demo

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"peerlink/node"
	"peerlink/node/nodetype"
)

// Options are the parameters of [Run].
type Options struct {
	Binary   string                // the peerlink binary
	Dir      string                // an existing, empty folder for everything
	Messages int                   // approximate number of messages to exchange
	Step     func(text string)     // called when a new step begins
	Progress func(done, total int) // called periodically with the number of delivered messages
}

// Link has the counts of one direction between two nodes, which [Result] explains.
type Link struct {
	From      string `json:"from"`
	To        string `json:"to"`
	Sent      int    `json:"sent"`
	Delivered int    `json:"delivered"`
	Repeated  int    `json:"repeated"`
	Lost      int    `json:"lost"`
	Dials     int    `json:"-"` // number of connections made during the demo
	// The chains that the two sides have verified, according to their logs.
	SenderVerified   string `json:"-"`
	ReceiverVerified string `json:"-"`
}

// Result is the result of the demo.
type Result struct {
	Nodes     int
	Links     []Link
	Sent      int           // messages confirmed by the senders' brokers
	Delivered int           // distinct messages delivered to the receivers' applications
	Repeated  int           // repeated deliveries
	Lost      int           // messages sent and not delivered
	Elapsed   time.Duration // from the start to the last new delivery, or to the end of the wait for one
	Outage    time.Duration // from the kill to the first new delivery after the restart
}

// MarshalJSON returns the totals, without the counts of each link.
func (r *Result) MarshalJSON() ([]byte, error) {
	return json.Marshal(struct {
		Nodes             int     `json:"nodes"`
		Links             int     `json:"links"`
		Sent              int     `json:"sent"`
		Delivered         int     `json:"delivered"`
		Repeated          int     `json:"repeated"`
		Lost              int     `json:"lost"`
		Seconds           float64 `json:"seconds"`
		MessagesPerSecond float64 `json:"messages_per_second"`
	}{r.Nodes, len(r.Links), r.Sent, r.Delivered, r.Repeated, r.Lost,
		float64(r.Elapsed.Round(time.Millisecond)) / 1e9, float64(int(float64(r.Delivered) / r.Elapsed.Seconds()))})
}

// patience is the time limit for waiting for the next delivery, or for a service to accept
// connections of its application.
const patience = 60 * time.Second

// authorityID is the node ID of the demo's accounting authority.
const authorityID = "1234abcd"

// Run runs the demo. Lost messages are part of the result, and not an error.
func Run(ctx context.Context, o Options) (*Result, error) {
	d := &run{Options: o, deliveries: newDeliveries()}
	if err := d.makeNodes(ctx); err != nil {
		return nil, err
	}
	d.Step("starting the three services")
	defer d.killAll()
	for _, n := range d.nodes {
		if err := n.start(ctx); err != nil {
			return nil, err
		}
	}
	res, err := d.converse(ctx)
	if err != nil {
		return nil, err
	}
	d.Step("stopping the services with SIGTERM")
	for _, n := range d.nodes {
		if err := n.stop(ctx); err != nil {
			return nil, err
		}
	}
	return res, d.readChains(res)
}

// run is the state of one run of the demo.
type run struct {
	Options
	nodes      []*demoNode // authority, creditors agent, debtors agent
	passphrase string      // file with the root keys' passphrase
	deliveries *deliveries
}

func (d *run) authority() *demoNode { return d.nodes[0] }
func (d *run) creditors() *demoNode { return d.nodes[1] }
func (d *run) debtors() *demoNode   { return d.nodes[2] }

// makeNodes makes the nodes, and makes them peers in the same way as their operators would.
func (d *run) makeNodes(ctx context.Context) error {
	d.passphrase = filepath.Join(d.Dir, "passphrase")
	if err := os.WriteFile(d.passphrase, []byte(rand.Text()+"\n"), 0o600); err != nil {
		return err
	}
	for _, t := range nodetype.All {
		n := &demoNode{run: d, kind: t, dir: filepath.Join(d.Dir, t.String())}
		n.state, n.log = n.dir+"-state", n.dir+".log"
		var err error
		if n.addr, err = freeAddress(); err != nil {
			return err
		}
		d.nodes = append(d.nodes, n)
	}
	d.Step("making three nodes: root keys, root and server certificates, info-bundles")
	if err := d.each(func(n *demoNode) error { return n.make(ctx) }); err != nil {
		return err
	}
	d.Step("peering them: each signs the other's info-bundle, each registers the certificate it gets")
	agents := []*demoNode{d.creditors(), d.debtors()}
	for _, pair := range [][2]*demoNode{{d.authority(), agents[0]}, {d.authority(), agents[1]}, {agents[0], d.authority()}, {agents[1], d.authority()}} {
		// In practice, operators compare fingerprints, for example on the telephone.
		fingerprint, err := pair[1].fingerprint(ctx)
		if err != nil {
			return err
		}
		if _, err := pair[0].command(ctx, "peer", "sign", "--fingerprint", fingerprint, "--passphrase-file", d.passphrase, pair[1].bundle()); err != nil {
			return err
		}
	}
	for _, agent := range agents {
		for _, pair := range [][2]*demoNode{{d.authority(), agent}, {agent, d.authority()}} {
			cert := filepath.Join(pair[1].dir, "peers", pair[0].id, "peercert.crt")
			if _, err := pair[0].command(ctx, "peer", "register", cert); err != nil {
				return err
			}
		}
	}
	return nil
}

// each calls do for all nodes concurrently.
func (d *run) each(do func(*demoNode) error) error {
	errs := make([]error, len(d.nodes))
	var wg sync.WaitGroup
	for i, n := range d.nodes {
		wg.Go(func() { errs[i] = do(n) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// converse runs the applications until every message has been answered and delivered, or until
// nothing is delivered for patience. Meanwhile it moves the authority.
func (d *run) converse(ctx context.Context) (*Result, error) {
	ctx, cancel := context.WithCancel(ctx)
	plan := newPlan(d.Messages)
	bank := newBank(d)
	creditors, debtors := newAgents(d, plan)
	apps := []*app{bank.app, creditors.app, debtors.app}
	var wg sync.WaitGroup
	defer wg.Wait()
	defer cancel()
	failed := make(chan error, len(apps))
	for _, a := range apps {
		wg.Go(func() {
			if err := a.run(ctx); err != nil && ctx.Err() == nil {
				failed <- fmt.Errorf("the application of the %s: %w", a.node.kind, err)
			}
		})
	}
	d.Step(fmt.Sprintf("exchanging about %d messages: accounts configured, currency issued, transfers made", d.Messages))
	start := time.Now()
	creditors.start()
	debtors.start()

	res := &Result{Nodes: len(d.nodes)}
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	last, lastAt := 0, time.Now()
	var killedAt time.Time
	for {
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case err := <-failed:
			return nil, err
		case <-tick.C:
		}
		sum := d.deliveries.sum()
		d.Progress(sum.Delivered, max(d.Messages, sum.Sent))
		if sum.Delivered != last {
			if res.Outage == 0 && !killedAt.IsZero() {
				res.Outage = time.Since(killedAt)
			}
			last, lastAt = sum.Delivered, time.Now()
		}
		if killedAt.IsZero() && sum.Delivered > d.Messages*2/5 {
			killedAt = time.Now()
			if err := d.moveAuthority(ctx); err != nil {
				return nil, err
			}
			creditors.releaseAll()
			last, lastAt = d.deliveries.sum().Delivered, time.Now()
		}
		done := creditors.done() && debtors.done() && bank.idle() && sum.Lost == 0
		if done || time.Since(lastAt) > patience {
			res.Elapsed = time.Since(start)
			if done {
				// Repeated deliveries may still follow.
				res.Elapsed = lastAt.Sub(start)
			}
			break
		}
	}
	sum := d.deliveries.sum()
	res.Sent, res.Delivered, res.Repeated, res.Lost = sum.Sent, sum.Delivered, sum.Repeated, sum.Lost
	res.Links = d.deliveries.links()
	return res, nil
}

// moveAuthority kills the authority's service and starts it on another address with a new
// server key. Its peers get the new address from a new info-bundle.
func (d *run) moveAuthority(ctx context.Context) error {
	n := d.authority()
	d.Step("killing the accounting authority (SIGKILL); it comes back on another port with a new server key")
	if err := n.kill(); err != nil {
		return err
	}
	addr, err := freeAddress()
	if err != nil {
		return err
	}
	n.addr, n.moves = addr, n.moves+1
	stompTOML := filepath.Join(n.dir, "nodeinfo", "stomp.toml")
	if err := os.WriteFile(stompTOML, node.EncodeStompTOML(n.kind, []string{addr}), 0o644); err != nil {
		return err
	}
	if err := n.makeCertAndBundle(ctx); err != nil {
		return err
	}
	for _, agent := range d.nodes[1:] {
		if _, err := agent.command(ctx, "peer", "sign", n.bundle()); err != nil {
			return err
		}
	}
	return n.start(ctx)
}

func (d *run) killAll() {
	for _, n := range d.nodes {
		n.kill()
	}
}
