package link_test

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

// outBecomes waits until a node's state of sending to a peer has the verdict, and a reason that
// contains the text. It returns the status of the link.
func outBecomes(t *testing.T, n, peer *linktest.Node, want link.Verdict, reason string) link.PeerStatus {
	t.Helper()
	return becomes(t, n, peer, "sends to", func(st *link.PeerStatus) link.LinkState { return st.Out }, want, reason)
}

// inBecomes is like outBecomes, for the direction in which the peer sends.
func inBecomes(t *testing.T, n, peer *linktest.Node, want link.Verdict, reason string) link.PeerStatus {
	t.Helper()
	return becomes(t, n, peer, "receives from", func(st *link.PeerStatus) link.LinkState { return st.In }, want, reason)
}

func becomes(t *testing.T, n, peer *linktest.Node, does string, state func(*link.PeerStatus) link.LinkState, want link.Verdict, reason string) (found link.PeerStatus) {
	t.Helper()
	linktest.Eventually(t, fmt.Sprintf("%v %s %v: %s", n.Identity(), does, peer.Identity(), want), func() error {
		for _, st := range n.Service.Status().Peers {
			if st.ID != peer.Identity().ID {
				continue
			}
			got := state(&st)
			if got.Verdict == want && strings.Contains(got.Reason, reason) {
				found = st
				return nil
			}
			return fmt.Errorf("%+v", got)
		}
		return fmt.Errorf("%v has no such peer", n.Identity())
	})
	checkState(t, state(&found))
	return found
}

// checkState checks what holds for each state: it has a beginning, not in the future, and what is
// bad has a reason and a remedy.
func checkState(t *testing.T, s link.LinkState) {
	t.Helper()
	if s.Since.IsZero() || time.Until(s.Since) > time.Second {
		t.Errorf("%s has begun at %v", s.Verdict, s.Since)
	}
	if s.Verdict.Severity() == link.Bad && (s.Reason == "" || s.Remedy == "") {
		t.Errorf("no reason or no remedy: %+v", s)
	}
}

// restart stops a node's service and starts it with another configuration.
func restart(t *testing.T, n *linktest.Node, change func(*link.Config)) {
	t.Helper()
	if err := n.Stop(); err != nil {
		t.Fatal(err)
	}
	change(&n.Config)
	n.Start()
}

// A peer that dies is unreachable in both directions, since it has died and not since the last
// attempt, and linked again when it is back. Then the last error is not shown any more.
func TestVerdictUnreachable(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	st := outBecomes(t, authority, other, link.VerdictLinked, "")
	inBecomes(t, authority, other, link.VerdictLinked, "")
	if st.LastContact == nil || time.Since(*st.LastContact) > time.Minute {
		t.Errorf("last contact: %v", st.LastContact)
	}
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	first := outBecomes(t, authority, other, link.VerdictUnreachable, "TCP connection refused by "+other.Addr)
	inBecomes(t, authority, other, link.VerdictUnreachable, "")
	linktest.Eventually(t, "more attempts", func() error {
		st := statusOf(t, authority, other)
		if st.Out.Verdict != link.VerdictUnreachable || !st.Out.Since.Equal(first.Out.Since) {
			t.Errorf("unreachable since %v, and then %s since %v", first.Out.Since, st.Out.Verdict, st.Out.Since)
		}
		if st.Counts.Failures < first.Counts.Failures+3 || st.Out.NextAttempt == nil {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if st := statusOf(t, authority, other); st.LastError == "" {
		t.Error("there is no last error while the peer is unreachable")
	}
	other.Start()
	outBecomes(t, authority, other, link.VerdictLinked, "")
	authority.Put(other, linktest.Message(t, authority, other, 1))
	other.Take(1)
	confirmed := time.Now()
	linktest.Eventually(t, "the last error is over", func() error {
		if st := statusOf(t, authority, other); st.LastError != "" || st.Confirm.Count != 1 || st.Confirm.P50 <= 0 || st.ConfirmHistogram.Count != 1 || st.HandshakeHistogram.Count == 0 {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	if took := time.Since(confirmed); took > 20*time.Second { // a connection that lasts would show it after 30 s
		t.Errorf("the last error was over %v after a message had passed", took)
	}
}

// A link with nothing to send rests. If the peer dies then, a check finds out, although nothing is
// to be sent; if it comes back, a retry does.
func TestVerdictResting(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	for _, n := range []*linktest.Node{authority, other} {
		restart(t, n, func(c *link.Config) { c.IdleTimeout = 10 * time.Millisecond })
	}
	outBecomes(t, authority, other, link.VerdictResting, "")
	inBecomes(t, authority, other, link.VerdictResting, "")
	restart(t, authority, func(c *link.Config) { c.CheckInterval = 50 * time.Millisecond })
	st := outBecomes(t, authority, other, link.VerdictResting, "")
	checks := func(n uint64) {
		begin := other.Service.Status().Peers[0].HandshakeHistogram.Count
		linktest.Eventually(t, "checks of the resting link", func() error {
			if got := other.Service.Status().Peers[0].HandshakeHistogram.Count; got < begin+n {
				return fmt.Errorf("%d handshakes since %d", got, begin)
			}
			return nil
		})
	}
	checks(2)
	if later := statusOf(t, authority, other); !later.Out.Since.Equal(st.Out.Since) {
		t.Errorf("resting since %v, and after checks since %v", st.Out.Since, later.Out.Since)
	}
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, authority, other, link.VerdictUnreachable, other.Addr)
	inBecomes(t, authority, other, link.VerdictUnreachable, other.Addr)
	other.Start()
	outBecomes(t, authority, other, link.VerdictResting, "")
}

// A peer that stores nothing confirms nothing: the sender sees that, and the peer sees its broker.
func TestVerdictUnconfirmed(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	b := &noInbox{Broker: authority.Config.Broker}
	b.away.Store(true)
	authority.Config.Broker = b
	other.Config.UnconfirmedAfter = 20 * time.Millisecond
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	outBecomes(t, other, authority, link.VerdictUnconfirmed, "")
	inBecomes(t, authority, other, link.VerdictBrokerUnavailable, "RabbitMQ is away")
	b.away.Store(false)
	authority.Take(1)
	outBecomes(t, other, authority, link.VerdictLinked, "")
	inBecomes(t, authority, other, link.VerdictLinked, "")
}

// A peer whose quota is full here is named, with the applications as the cause.
func TestVerdictQuotaFull(t *testing.T) {
	t.Parallel()
	authority := linktest.NewOn(t, aa, linktest.EmbeddedWith(embedded.Options{PeerQuota: 2000}))
	other := linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	other.Start()
	other.Put(authority, numbered(t, other, authority, 1, 100)...)
	inBecomes(t, authority, other, link.VerdictQuotaFull, "no application has consumed")
	authority.Take(100)
}

// A peer that sends faster than it may is throttled.
func TestVerdictThrottled(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Config.MaxRate = 20
	authority.Start()
	other.Start()
	other.Put(authority, numbered(t, other, authority, 1, 30)...)
	inBecomes(t, authority, other, link.VerdictThrottled, "")
	authority.Take(30)
}

// Faults of the node's own broker are not blamed on the peer, at each step at which they occur.
func TestVerdictBrokerUnavailable(t *testing.T) {
	t.Parallel()
	authority, other, refusing := nodesWithRefusingBroker(t)
	refusing.bind.Store(true)
	other.Start()
	authority.Start()
	outBecomes(t, authority, other, link.VerdictBrokerUnavailable, "bind: access refused")
	inBecomes(t, authority, other, link.VerdictBrokerUnavailable, "bind: access refused")
	refusing.consume.Store(true)
	refusing.bind.Store(false)
	outBecomes(t, authority, other, link.VerdictBrokerUnavailable, "consume: access refused")
	refusing.consume.Store(false)
	authority.Put(other, linktest.Message(t, authority, other, 1))
	other.Take(1)
	outBecomes(t, authority, other, link.VerdictLinked, "")
}

// If the clocks differ, both nodes say so while messages are refused because of it.
func TestVerdictClockDiffers(t *testing.T) {
	t.Parallel()
	authority, other, authorityClock, _ := nodesWithClocks(t)
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	authorityClock.set(27 * day)
	other.Put(authority, numbered(t, other, authority, 2, 3)...)
	out := outBecomes(t, other, authority, link.VerdictClockDiffers, "in the future")
	in := inBecomes(t, authority, other, link.VerdictClockDiffers, "in the future")
	linktest.Eventually(t, "more refusals", func() error {
		if st := statusOf(t, authority, other); st.Counts.Refused < in.Counts.Refused+2 {
			return fmt.Errorf("%+v", st.Counts)
		}
		return nil
	})
	if st := statusOf(t, other, authority); !st.Out.Since.Equal(out.Out.Since) {
		t.Errorf("since %v, and after more refusals since %v (%s)", out.Out.Since, st.Out.Since, st.Out.Verdict)
	}
	if st := statusOf(t, authority, other); !st.In.Since.Equal(in.In.Since) {
		t.Errorf("since %v, and after more refusals since %v (%s)", in.In.Since, st.In.Since, st.In.Verdict)
	}
	authorityClock.set(30 * day)
	authority.Take(3)
	outBecomes(t, other, authority, link.VerdictLinked, "")
	inBecomes(t, authority, other, link.VerdictLinked, "")
}

// A certificate that is not valid yet is refused on both sides. The node with the wrong clock sees
// that clocks differ; the other one, which gets no more than an alert, names the possibility.
func TestVerdictWrongCertificate(t *testing.T) {
	t.Parallel()
	authority, other, authorityClock, _ := nodesWithClocks(t)
	outBecomes(t, other, authority, link.VerdictLinked, "")
	authorityClock.set(-2 * day)
	for _, n := range []*linktest.Node{authority, other} {
		restart(t, n, func(*link.Config) {})
	}
	outBecomes(t, other, authority, link.VerdictWrongCertificate, "its clock is wrong")
	outBecomes(t, authority, other, link.VerdictClockDiffers, "from now, by the clock of this node")
}

// Another node at the address of the peer is not the peer.
func TestVerdictAnotherNode(t *testing.T) {
	t.Parallel()
	authority, other, third := linktest.New(t, aa), linktest.New(t, ca), linktest.New(t, ca)
	third.Addr = other.Addr
	nodetest.Peer(t, authority.Node, other.Node)
	nodetest.Peer(t, authority.Node, third.Node)
	third.Start()
	authority.Start()
	outBecomes(t, authority, other, link.VerdictWrongCertificate, "not issued by a trusted certificate")
}

// With a server certificate that has expired nothing is sent, and the cause is this node's.
func TestVerdictCertificateExpired(t *testing.T) {
	t.Parallel()
	authority, other, authorityClock, _ := nodesWithClocks(t)
	outBecomes(t, authority, other, link.VerdictLinked, "")
	authorityClock.set(400 * day)
	outBecomes(t, authority, other, link.VerdictCertificateExpired, "this node's server certificate")
}

// A message that the peer refuses makes both verdicts "refused". The ERROR is quoted.
func TestVerdictRefused(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	file := filepath.Join(other.Path(), "peers", authority.Identity().ID, "nodeinfo", "stomp.toml")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte(strings.ReplaceAll(string(text), "accounts_in", "elsewhere")), 0o644); err != nil {
		t.Fatal(err)
	}
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	outBecomes(t, other, authority, link.VerdictRefused, "destination of SEND")
	inBecomes(t, authority, other, link.VerdictRefused, "destination of SEND")
	other.WaitDrained(authority, 1)
}

// What the node's directory says about a peer goes before what its connections have shown.
func TestVerdictOfFiles(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	outBecomes(t, authority, other, link.VerdictLinked, "")
	dir := filepath.Join(other.Path(), "peers", authority.Identity().ID)
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, other, authority, link.VerdictGone, "")
	if err := os.Rename(dir+".away", dir); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, other, authority, link.VerdictLinked, "")
	if _, err := authority.DeactivatePeer(t.Context(), other.Identity().ID); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, authority, other, link.VerdictDeactivated, "20")
	inBecomes(t, authority, other, link.VerdictDeactivated, "20")
	outBecomes(t, other, authority, link.VerdictNotRegistered, "deactivated this node")
}

// A peer whose files can never be read has that as its verdict, in both directions.
func TestVerdictUnreadable(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	if err := os.WriteFile(filepath.Join(authority.Path(), "peers", other.Identity().ID, "root-ca.crt"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	authority.Start()
	outBecomes(t, authority, other, link.VerdictUnreadable, "root-ca.crt")
	inBecomes(t, authority, other, link.VerdictUnreadable, "root-ca.crt")
}

// The JSON form has the names that programs read.
func TestLinkStateJSON(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 30, 12, 0, 0, 0, time.UTC)
	got, err := json.Marshal(link.LinkState{Verdict: link.VerdictUnreachable, Since: at, Reason: "r", Remedy: "m", NextAttempt: &at})
	const want = `{"verdict":"unreachable","since":"2026-11-30T12:00:00Z","reason":"r","remedy":"m","next_attempt":"2026-11-30T12:00:00Z"}`
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v; expected %s", got, err, want)
	}
}

// A peer that dies without closing its connections, such as one whose machine has lost power, is
// unreachable in both directions once its heart-beats are missing.
func TestVerdictSilent(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	beat := stomp.HeartBeat{Send: 50 * time.Millisecond, Receive: 50 * time.Millisecond, Grace: 500 * time.Millisecond}
	authority.Config.HeartBeat, other.Config.HeartBeat = beat, beat
	var frozen atomic.Bool
	toAuthority, toOther := freezable(t, &frozen, authority.Addr), freezable(t, &frozen, other.Addr)
	authority.WriteStompTOML(toAuthority)
	other.WriteStompTOML(toOther)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	other.Start()
	for _, pair := range [][2]*linktest.Node{{authority, other}, {other, authority}} {
		outBecomes(t, pair[0], pair[1], link.VerdictLinked, "")
		inBecomes(t, pair[0], pair[1], link.VerdictLinked, "")
	}
	frozen.Store(true)
	outBecomes(t, authority, other, link.VerdictUnreachable, "")
	inBecomes(t, authority, other, link.VerdictUnreachable, "")
}

// freezable returns the address of a relay to a server. While frozen is set it forwards nothing, and
// neither closes nor answers.
func freezable(t *testing.T, frozen *atomic.Bool, server string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	forward := func(from, to net.Conn) {
		defer to.Close()
		buf := make([]byte, 32<<10)
		for {
			n, err := from.Read(buf)
			if err != nil {
				return
			}
			if frozen.Load() {
				continue
			}
			if _, err := to.Write(buf[:n]); err != nil {
				return
			}
		}
	}
	go func() {
		for {
			client, err := l.Accept()
			if err != nil {
				return
			}
			upstream, err := net.Dial("tcp", server)
			if err != nil {
				client.Close()
				continue
			}
			go forward(client, upstream)
			go forward(upstream, client)
		}
	}()
	return l.Addr().String()
}
