// Package doctor finds out why a node does not exchange messages with its peers. [Run] looks at
// everything on the path of a message, in the order in which one thing needs the other: the clock,
// the node's directory, the server certificate, the addresses, the broker, and then, for each peer,
// the name, the connection, TLS, the certificates and the STOMP session. Each result is a [Check].
// A check that needs something that has failed is skipped, so that the first failed check is the cause.
//
// Nothing is changed, and no message is sent. A connection to a peer is opened and ended in good
// order, so the peer may run any implementation. No service of the node has to run; if one does, it
// is asked as well.
package doctor

import (
	"context"
	"fmt"
	"slices"
	"time"

	"peerlink/admin"
	"peerlink/internal/outproxy"
	"peerlink/link"
	"peerlink/node"
)

// Config has the settings of the node's service, and what is known about it.
type Config struct {
	Dir                   string          // the node's directory
	ServerCert, ServerKey string          // files
	Listen                string          // where peers connect, as host:port
	Peer                  string          // the node ID of the only peer to be examined; empty: all
	Proxy                 *outproxy.Proxy // through which peers are reached; nil for none
	Broker                Broker
	Service               *admin.Links // what the running service says; nil if there is none, or it does not answer
	ServiceErr            error        // why it does not answer
	Now                   func() time.Time
	// Progress is called, from several goroutines, when a peer has been examined. It may be nil.
	Progress func(done, total int)

	// Bounds of the connections to peers; see [link.Config]. 0 means the defaults there.
	ConnectTimeout, HandshakeTimeout time.Duration

	// Set by tests only.
	synchronized func() bool
}

// Broker is the examination of the place where the node's messages are kept.
type Broker interface {
	// examine adds checks about the broker as a whole.
	examine(ctx context.Context, e *examination)
	// examinePeer adds checks about the messages for a peer.
	examinePeer(ctx context.Context, e *examination, s *section, p *node.Peer)
	// close is called when all peers have been examined.
	close()
}

// UnknownBroker is a [Broker] that can not be examined. The text says why.
type UnknownBroker string

func (b UnknownBroker) examine(_ context.Context, e *examination) {
	e.add("broker", "", Skipped, string(b), "")
}

func (UnknownBroker) examinePeer(context.Context, *examination, *section, *node.Peer) {}
func (UnknownBroker) close()                                                          {}

// A State is the result of a [Check].
type State string

// The states.
const (
	Passed  State = "passed"
	Warning State = "warning" // works, but somebody should do something
	Failed  State = "failed"
	Skipped State = "skipped" // what it needs has failed
)

// Check is what was found about one thing. Programs read its JSON form: the names in it, and the
// names of checks, stay; new ones may be added.
type Check struct {
	Name    string `json:"check"`
	Subject string `json:"subject"` // what was looked at: a file, an address, a peer and one of its servers
	OK      bool   `json:"ok"`      // it has not failed
	State   State  `json:"state"`
	Detail  string `json:"detail"` // what was found; may quote others
	Remedy  string `json:"remedy"` // what ends a failure or a warning
	Peer    string `json:"peer"`   // the node ID of the peer that it is about; empty for the node itself
}

// Report is the result of [Run].
type Report struct {
	OK     bool    `json:"ok"` // no check has failed
	Checks []Check `json:"checks"`
}

// Count returns the number of checks with a state.
func (r *Report) Count(s State) int {
	n := 0
	for _, c := range r.Checks {
		if c.State == s {
			n++
		}
	}
	return n
}

// First returns the first check that has failed or, if none has, the first warning; nil if there is
// neither.
func (r *Report) First() *Check {
	for _, s := range []State{Failed, Warning} {
		if at := slices.IndexFunc(r.Checks, func(c Check) bool { return c.State == s }); at >= 0 {
			return &r.Checks[at]
		}
	}
	return nil
}

// examination is the state of one [Run].
type examination struct {
	*section
	cfg     Config
	now     time.Time
	dir     *node.Dir         // nil if it can not be opened
	cert    *link.Certificate // nil if it can not be used
	peers   map[string]*section
	serving bool // a service of this node answers at cfg.Listen
}

// Run examines the node. The error is that of ctx.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Service != nil && cfg.Service.Listen != "" {
		cfg.Listen = cfg.Service.Listen
	}
	if cfg.Broker != nil {
		defer cfg.Broker.close()
	}
	e := &examination{section: newSection(nil, ""), cfg: cfg, now: cfg.Now(), peers: make(map[string]*section)}
	for _, step := range []func(context.Context){
		e.checkClock, e.checkDirectory, e.checkCertificate, e.checkService, e.checkListen, e.checkAnnounced, e.checkBroker, e.checkPeers,
	} {
		if step(ctx); ctx.Err() != nil {
			return nil, context.Cause(ctx)
		}
	}
	r := &Report{Checks: e.checks}
	for _, id := range e.peerIDs() {
		r.Checks = append(r.Checks, e.peers[id].checks...)
	}
	r.OK = r.Count(Failed) == 0
	return r, nil
}

// checkService checks what the running service says about itself.
func (e *examination) checkService(context.Context) {
	const name = "service"
	s := e.cfg.Service
	switch {
	case e.cfg.ServiceErr != nil:
		e.fail(name, "", e.cfg.ServiceErr.Error(), "look into the log of the service, and start it again if it hangs")
	case s == nil:
		e.pass(name, "", "none runs here for this directory")
	case !s.Ready:
		for _, problem := range s.Problems {
			e.fail(name, "", "not ready: "+problem, "look at the other checks, and into the log of the service")
		}
	default:
		e.pass(name, "", fmt.Sprintf("ready, since %s", s.Since.UTC().Format(time.DateTime)))
	}
	if s == nil {
		return
	}
	for _, warning := range s.Warnings {
		e.warn("limits", "", warning, "see docs/queues.md, about limits of queues")
	}
}

func (e *examination) checkBroker(ctx context.Context) {
	if e.cfg.Broker == nil || e.skip("broker", "", "directory") {
		return
	}
	e.cfg.Broker.examine(ctx, e)
}
