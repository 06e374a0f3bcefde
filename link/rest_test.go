package link_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"peerlink/link/linktest"
)

// rests waits until the node has given up so many connections for want of
// anything to send.
func rests(t *testing.T, n *linktest.Node, times int) {
	t.Helper()
	linktest.Eventually(t, "the connection to rest", func() error {
		if strings.Count(n.Log.String(), "idle=true") < times {
			return errors.New(n.Log.String())
		}
		return nil
	})
}

// A connection with nothing to send rests, and is made again at once when there
// is something: everything arrives, in whatever rhythm it comes, and follows the
// peer if that has moved in the meantime.
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
			rests(t, other, 1) // after the first attempt, which shows that all is well
			sent := 0
			put := func(n int) {
				other.Put(authority, numbered(t, other, authority, sent, n)...)
				sent += n
				authority.Take(n)
			}
			for round, pause := range []time.Duration{0, 19 * time.Millisecond, 20 * time.Millisecond, 21 * time.Millisecond, 0} {
				put(1 + 10*round)
				time.Sleep(pause) // so that messages come at the moment of going to rest
				put(1)
			}
			other.Left(authority, 0)

			rests(t, other, 2)
			if err := authority.Stop(); err != nil {
				t.Fatal(err)
			}
			authority.Addr = linktest.FreeAddress(t)
			authority.Manifest(authority.Addr)
			authority.Start()
			other.Sign(t, authority.Bundle(t))
			put(3)
			if err := other.Stop(); err != nil { // resting or not
				t.Error(err)
			}
		})
	}
}

// With a negative IdleTimeout connections never rest.
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
	other.Left(authority, 0)
	if err := other.Stop(); err != nil {
		t.Fatal(err)
	}
	if log := other.Log.String(); strings.Contains(log, "idle=true") {
		t.Error(log)
	}
}
