package link_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/local"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
	"peerlink/stomp"
)

// doorPair makes two nodes that are peers, starts their services, and opens the local door of
// the node with type owner in a state folder.
func doorPair(t *testing.T, owner, peer nodetype.Type) (n, other *linktest.Node, state string) {
	t.Helper()
	n, other = linktest.New(t, owner), linktest.New(t, peer)
	nodetest.Peer(t, n.Node, other.Node)
	state = openDoor(t, n)
	n.Start()
	other.Start()
	linktest.Eventually(t, "the link", func() error {
		if s := n.Service.Status(); len(s.Peers) != 1 || s.Peers[0].State != "active" {
			return errors.New("the peer is not active")
		}
		return nil
	})
	return n, other, state
}

// openDoor opens the local door of a node whose service is not started yet.
func openDoor(t *testing.T, n *linktest.Node) (state string) {
	t.Helper()
	state, err := os.MkdirTemp("", "door") // short enough for a Unix socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(state) })
	if n.Config.Outbox, err = link.NewOutbox(n.Dir); err != nil {
		t.Fatal(err)
	}
	kind := n.Identity().Type
	door, err := local.Open(local.Config{
		Store: n.Store, StateDir: state, Listen: "127.0.0.1:0", Inbox: kind.Inbox(), Exchanges: kind.Outboxes(), Messages: n.Config.Outbox, Log: n.Log.Logger(),
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- door.Serve(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-served; err != nil {
			t.Error(err)
		}
	})
	return state
}

// A message for which there is no peer is confirmed. At a creditors agent the configuration of an
// account is answered in the inbox, as the peer would answer it, with the IDs and headers of the
// application; every other message is set aside.
func TestDoorWithoutPeer(t *testing.T) {
	t.Parallel()
	for _, owner := range []nodetype.Type{aa, ca, da} {
		t.Run(owner.Short(), func(t *testing.T) {
			t.Parallel()
			n := linktest.New(t, owner)
			if owner == ca { // a range of its own that no peer uses
				if err := os.WriteFile(filepath.Join(n.Path(), "creditors-subnet.txt"), []byte("000001\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			state := openDoor(t, n)
			n.Start()
			exchange := owner.Outboxes()[0]
			m := linktest.Message(t, n, &linktest.Node{Node: n.Node}, 7)
			key := map[nodetype.Type]string{aa: "00.00.01.01.00.00.00.00", ca: "12.34.ab.cd.00.00.00.07"}[owner]
			if err := sendBy(t, state, exchange, key, m); err != nil {
				t.Fatal(err)
			}
			wrong := m
			wrong.Body = []byte("{}")
			if err := sendBy(t, state, exchange, key, wrong); err == nil {
				t.Error("an invalid message is confirmed")
			}
			aside := n.Aside(embedded.UnroutableQueue(exchange))
			if owner != ca {
				if len(aside) != 1 || aside[0] != "no active peer's range contains the routing key" {
					t.Errorf("set aside: %q", aside)
				}
				return
			}
			got := n.TakeEach(1)[0]
			var body map[string]any
			if err := json.Unmarshal(got.Body, &body); err != nil {
				t.Fatal(err)
			}
			headers := fmt.Sprint(got.Headers)
			if len(aside) > 0 || got.Type != smp.RejectedConfig || body["rejection_code"] != "NO_CONNECTION_TO_DEBTOR" || body["config_seqnum"] != 7.0 ||
				body["config_data"] != "number 7" || got.RoutingKey != smp.RoutingKey(0x000001_01_00000000) ||
				headers != fmt.Sprintf("[{message-type RejectedConfig} {debtor-id %d} {creditor-id %d} {ca-creditors true} {ca-trade false}]", 0x1234abcd_00_000007, 0x000001_01_00000000) {
				t.Errorf("got %s %s %s %s, set aside: %q", got.Type, got.RoutingKey, headers, got.Body, aside)
			}
		})
	}
}

// sendBy sends a message by the local door, and returns the door's answer.
func sendBy(t *testing.T, state, exchange, key string, m broker.Outgoing) error {
	t.Helper()
	c, err := local.Dial(t.Context(), state)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	answer := make(chan error, 1)
	if err := c.Send(t.Context(), exchange, key, m.Type, m.Body, func(err error) { answer <- err }); err != nil {
		t.Fatal(err)
	}
	return <-answer
}

// The local door of a node of each type confirms what the peer accepts, and refuses, with the
// reason, what could not be sent to the peer: nothing of that is stored.
func TestDoorRefusesWhatCannotBeSent(t *testing.T) {
	t.Parallel()
	for _, nodes := range [][2]nodetype.Type{{aa, ca}, {aa, da}, {ca, aa}, {da, aa}} {
		owner, peer := nodes[0], nodes[1]
		t.Run(owner.Short()+" to "+peer.Short(), func(t *testing.T) {
			t.Parallel()
			n, other, state := doorPair(t, owner, peer)
			good := linktest.Message(t, n, other, 1)
			_, debtor, creditor, err := smp.PeekIDs(good.Body)
			if err != nil {
				t.Fatal(err)
			}
			key := smp.OutgoingRoutingKey(owner, peer, debtor, creditor)
			exchange := owner.Outbox(peer)
			change := func(old, new string) broker.Outgoing {
				if !bytes.Contains(good.Body, []byte(old)) {
					t.Fatalf("%s does not contain %s", good.Body, old)
				}
				return broker.Outgoing{Type: good.Type, Body: bytes.Replace(good.Body, []byte(old), []byte(new), 1)}
			}
			for like, m := range map[string]broker.Outgoing{
				"type is missing":                       {Type: good.Type, Body: []byte("{}")},
				"not valid JSON":                        {Type: good.Type, Body: []byte("nonsense")},
				"accounting authority are allowed here": {Type: map[bool]string{true: smp.PrepareTransfer, false: smp.AccountPurge}[owner == aa], Body: good.Body},
				"expected one of the ten message types": {Type: "Nothing", Body: good.Body},
				"not one of the peer's debtors":         change(`"debtor_id":13`, `"debtor_id":23`),
				"is not one of the":                     change(`"creditor_id":`, `"creditor_id":9`),
				"config_flags is 4294967296, expected":  change(`"config_flags":0`, `"config_flags":4294967296`),
			} {
				var refused *stomp.ServerError
				err := sendBy(t, state, exchange, key, m)
				if !errors.As(err, &refused) || !bytes.Contains([]byte(refused.Message), []byte(like)) || refused.ReceiptID == "" {
					t.Errorf("%s %s: got %v, expected an ERROR with its receipt-id and %q", m.Type, m.Body, err, like)
				}
			}
			if err := sendBy(t, state, exchange, key, good); err != nil {
				t.Errorf("a valid message is refused: %v", err)
			}
			if got := other.Take(1); len(got) != 1 {
				t.Errorf("the peer got %v", got)
			}
			n.WaitDrained(other, 0)
		})
	}
}
