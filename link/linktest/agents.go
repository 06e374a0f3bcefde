package linktest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"

	"peerlink/broker"
	"peerlink/link"
	"peerlink/node"
	"peerlink/node/nodetest"
)

// Agent is one of many creditors agents that are peers of the same accounting authority.
// It contains all that another process needs to run the agent's service.
type Agent struct {
	nodetest.Member
	Addr    string          // where its service listens
	Message broker.Outgoing // that it may send to the authority
}

// NewAgents makes creditors agents that are active peers of an accounting authority. On
// Linux each agent connects to an address of the authority that no other agent uses (see
// [Network.DistinctSources]); the authority listens on all of them once it is started.
func NewAgents(t testing.TB, authority *Node, count int) []Agent {
	t.Helper()
	_, authorityPort, err := net.SplitHostPort(authority.Addr)
	if err != nil {
		t.Fatal(err)
	}
	address := func(int) string { return FreeAddress(t) }
	authorityAddress := func(int) string { return authority.Addr }
	if runtime.GOOS == "linux" { // elsewhere there is only 127.0.0.1
		_, port, err := net.SplitHostPort(FreeAddress(t))
		if err != nil {
			t.Fatal(err)
		}
		address = func(i int) string { return fmt.Sprintf("127.20.%d.%d:%s", i/250, 1+i%250, port) }
		authorityAddress = func(i int) string { return fmt.Sprintf("127.21.%d.%d:%s", i/250, 1+i%250, authorityPort) }
	}
	addrs := make([]string, count)
	members := nodetest.NewMembers(t, authority.Node, count, func(i int) (string, string) {
		addrs[i] = address(i)
		return addrs[i], authorityAddress(i)
	})
	if runtime.GOOS == "linux" {
		authority.Addr = net.JoinHostPort("0.0.0.0", authorityPort)
	}
	list := make([]Agent, count)
	for i, m := range members {
		dir, err := node.Open(m.Dir)
		if err != nil {
			t.Fatal(err)
		}
		from := &Node{Node: &nodetest.Node{Dir: dir}}
		list[i] = Agent{m, addrs[i], Message(t, from, authority, 1)}
	}
	return list
}

// MessageTo returns the n-th message from the authority to the agent, see [Message].
func (m *Agent) MessageTo(t testing.TB, authority *Node, n int) broker.Outgoing {
	t.Helper()
	subnet, err := strconv.ParseInt(m.Subnet, 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	out := Message(t, authority, authority, n)
	out.Body = bytes.Replace(out.Body, []byte(`"creditor_id":0`), fmt.Appendf(nil, `"creditor_id":%d`, subnet<<40|0x01_00000000), 1)
	return out
}

// Queue returns the name of the authority's queue to the agent.
func (m *Agent) Queue() string { return "peer." + m.ID + ".0" }

// Agents runs the services of many agents, all in this process.
type Agents struct {
	members  []*agentService
	rejected map[string]uint64 // as in link.Status, by services that have ended
	stop     context.CancelFunc
	done     chan error // receives the result of each service
}

type agentService struct {
	Agent
	cfg     link.Config
	memory  *Memory
	network *Network
	service *link.Service
}

// OpenAgents prepares the services of agents. cfg is their configuration, without the
// fields that OpenAgents sets: Dir, Certificate and Broker.
func OpenAgents(list []Agent, cfg link.Config) (*Agents, error) {
	c := &Agents{rejected: make(map[string]uint64)}
	for _, m := range list {
		s := &agentService{Agent: m, cfg: cfg, memory: NewMemory()}
		var err error
		if s.cfg.Dir, err = node.Open(m.Dir); err != nil {
			return nil, err
		}
		if s.cfg.Certificate, err = link.LoadCertificate(s.cfg.Dir, m.CertFile, m.KeyFile); err != nil {
			return nil, err
		}
		s.cfg.Broker = s.memory
		c.members = append(c.members, s)
	}
	return c, nil
}

// Start starts all services at once.
func (c *Agents) Start() error {
	for _, s := range c.members {
		l, err := net.Listen("tcp", s.Addr)
		if err != nil {
			return err
		}
		s.network = &Network{Listener: l}
		s.service = link.New(s.cfg)
	}
	var ctx context.Context
	ctx, c.stop = context.WithCancel(context.Background())
	c.done = make(chan error, len(c.members))
	for _, s := range c.members {
		go func() { c.done <- s.service.Run(ctx, s.network) }()
	}
	return nil
}

// Stop ends all services.
func (c *Agents) Stop() (err error) {
	c.stop()
	for range c.members {
		err = errors.Join(err, <-c.done)
	}
	for _, s := range c.members {
		AddRejected(c.rejected, s.service)
		s.service = nil
	}
	return err
}

// Cut ends the connections accepted by the agents, and new ones until [Agents.Mend]. It
// does not affect the connections that agents have made.
func (c *Agents) Cut() { c.each((*Network).Cut) }

// Mend undoes [Agents.Cut].
func (c *Agents) Mend() { c.each((*Network).Mend) }

func (c *Agents) each(do func(*Network)) {
	var wg sync.WaitGroup
	for _, s := range c.members {
		wg.Go(func() { do(s.network) })
	}
	wg.Wait()
}

// Put puts a message for the authority into the queue of each agent.
func (c *Agents) Put() {
	for _, s := range c.members {
		s.memory.Put("peer."+nodetest.AAID+".0", s.Message)
	}
}

// AgentsState is the state of all agents.
type AgentsState struct {
	Linked   int               // agents with connections both ways
	Waiting  int               // messages queued for the authority
	Received int               // different messages from the authority
	Rejected map[string]uint64 // as in link.Status, summed over all services, including those that have ended
	Failures uint64            // of attempts to reach the authority
	Errors   map[string]int    // how many agents have this last error, by the error without its digits
}

// State returns the state of all agents together.
func (c *Agents) State() AgentsState {
	st := AgentsState{Rejected: maps.Clone(c.rejected), Errors: make(map[string]int)}
	for _, s := range c.members {
		st.Waiting += s.memory.Left()
		st.Received += s.memory.Received()
		if s.service == nil {
			continue
		}
		AddRejected(st.Rejected, s.service)
		for _, p := range s.service.Status().Peers {
			if Linked(&p) {
				st.Linked++
			}
			st.Failures += p.Counts.Failures
			if p.LastError != "" {
				st.Errors[withoutDigits(p.LastError)]++
			}
		}
	}
	return st
}

// withoutDigits removes the digits of an error, so that errors that differ only in
// addresses or times are counted together.
func withoutDigits(err string) string {
	return strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' {
			return -1
		}
		return r
	}, err)
}

// Linked reports whether there are connections with the peer in both directions.
func Linked(p *link.PeerStatus) bool {
	connected := make(map[string]bool)
	for _, c := range p.Connections {
		connected[c.Direction] = true
	}
	return connected[link.Sending] && connected[link.Receiving]
}

// AddRejected adds the rejections of a service to sum.
func AddRejected(sum map[string]uint64, s *link.Service) {
	for reason, n := range s.Status().Rejected {
		sum[reason] += n
	}
}
