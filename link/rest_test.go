package link_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
)

// rests waits until the node has closed this many idle connections.
func rests(t *testing.T, n *linktest.Node, times int) {
	t.Helper()
	linktest.Eventually(t, "the connection to rest", func() error {
		if strings.Count(n.Log.String(), "idle=true") < times {
			return errors.New(n.Log.String())
		}
		return nil
	})
}

// An idle connection is closed, and another one is made at once when there is something
// to send: every message is delivered, at whatever intervals it is sent, and to the new
// address if the peer has moved in the meantime.
func TestIdleConnectionRests(t *testing.T) {
	t.Parallel()
	for name, on := range bothBrokers {
		t.Run(name, func(t *testing.T) {
			authority, other := linktest.PairOn(t, ca, linktest.Embedded, on)
			if err := other.Stop(); err != nil {
				t.Fatal(err)
			}
			other.Config.IdleTimeout = 20 * time.Millisecond
			other.Start()
			rests(t, other, 1) // after the first connection
			sent := 0
			put := func(n int) {
				other.Put(authority, numbered(t, other, authority, sent, n)...)
				sent += n
				authority.Take(n)
			}
			for round, pause := range []time.Duration{0, 19 * time.Millisecond, 20 * time.Millisecond, 21 * time.Millisecond, 0} {
				put(1 + 10*round)
				time.Sleep(pause) // so that messages are sent at the moment when the connection is closed
				put(1)
			}
			other.WaitDrained(authority, 0)

			rests(t, other, 2)
			if err := authority.Stop(); err != nil {
				t.Fatal(err)
			}
			authority.Addr = linktest.FreeAddress(t)
			authority.WriteStompTOML(authority.Addr)
			authority.Start()
			other.Sign(t, authority.Bundle(t))
			put(3)
			if err := other.Stop(); err != nil { // idle or not
				t.Error(err)
			}
		})
	}
}

// A message ends the idle time, and not a pause between two attempts, which would be a
// day here.
func TestRestEndsAtOnce(t *testing.T) {
	t.Parallel()
	for name, on := range bothBrokers {
		t.Run(name, func(t *testing.T) {
			authority, other := linktest.PairOn(t, ca, linktest.Embedded, on)
			if err := other.Stop(); err != nil {
				t.Fatal(err)
			}
			other.Config.IdleTimeout = 10 * time.Millisecond
			other.Config.RetryMin, other.Config.RetryMax = 24*time.Hour, 24*time.Hour
			other.Start()
			for n := range 4 {
				rests(t, other, n+1)
				other.Put(authority, linktest.Message(t, other, authority, n))
				authority.Take(1)
			}
		})
	}
}

// Of several servers a random one is dialed first, so that the peers of a node are
// distributed over them.
func TestServersInRandomOrder(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	authority.WriteStompTOML(forward(t, authority.Addr), forward(t, authority.Addr))
	nodetest.Peer(t, authority.Node, other.Node)
	other.Config.IdleTimeout = 50 * time.Millisecond // long enough to be observed
	authority.Start()
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 0))
	authority.Take(1)
	sending := func() (server string) {
		for _, c := range statusOf(t, other, authority).Connections {
			if c.Direction == link.Sending {
				server = c.Remote
			}
		}
		return server
	}
	used := make(map[string]int)
	for n := 1; len(used) < 2; n++ {
		// If every other connection is not observed, one of the two servers is never
		// the first of forty once in 2^39 times.
		if n > 80 {
			t.Fatalf("connections to %v", used)
		}
		linktest.Eventually(t, "rest", func() error {
			if server := sending(); server != "" {
				return fmt.Errorf("a connection to %s", server)
			}
			return nil
		})
		before := statusOf(t, other, authority).Counts.Connects
		other.Put(authority, linktest.Message(t, other, authority, n))
		linktest.Eventually(t, "a connection", func() error {
			server := sending()
			if server != "" {
				used[server]++
				return nil
			}
			if statusOf(t, other, authority).Counts.Connects == before {
				return errors.New("none")
			}
			return nil // it was too short to be observed
		})
	}
}

// With a negative IdleTimeout, idle connections are not closed.
func TestConnectionDoesNotRest(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	other.Config.IdleTimeout = -1
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	other.WaitDrained(authority, 0)
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	if log := other.Log.String(); strings.Contains(log, "idle=true") {
		t.Error(log)
	}
}
