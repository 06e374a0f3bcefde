package link_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"

	"peerlink/broker"
	"peerlink/broker/rabbitmq/rabbittest"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// waiting makes a node and a peer that is not running. The queue to the peer contains a
// message of each type that the node may send, and an invalid one.
func waiting(t *testing.T, owner, peer nodetype.Type, on linktest.BrokerSetup) (n, other *linktest.Node, messages []broker.Outgoing) {
	t.Helper()
	n, other = linktest.NewOn(t, owner, on), linktest.New(t, peer)
	nodetest.Peer(t, n.Node, other.Node)
	n.Start()
	debtor, creditor, coordinator := int64(0x1234abcd_00_000007), int64(0x000001_01_00000009), "direct"
	coordinatorID := creditor
	if owner == da || peer == da {
		creditor, coordinator, coordinatorID = 0, "issuing", debtor
	}
	for _, typ := range smp.Types() {
		if smp.IsIn(typ) != (owner != aa) {
			continue
		}
		fields := maps.Clone(queuedFields)
		maps.Copy(fields, map[string]any{
			"type": typ, "debtor_id": debtor, "creditor_id": creditor, "coordinator_type": coordinator, "coordinator_id": coordinatorID,
		})
		if typ == smp.RejectedTransfer {
			fields["status_code"] = "NO"
		}
		body, err := json.Marshal(fields)
		if err != nil {
			t.Fatal(err)
		}
		messages = append(messages, broker.Outgoing{Type: typ, ContentType: smp.ContentType, Body: body})
	}
	broken := broker.Outgoing{Type: messages[0].Type, ContentType: smp.ContentType, Body: []byte("broken")}
	n.Put(other, append(messages, broken)...)
	return n, other, messages
}

// queuedFields are the fields of all message types except the IDs of accounts.
var queuedFields = func() map[string]any {
	const when = "2026-01-02T03:04:05Z"
	fields := map[string]any{
		"coordinator_request_id": 5, "transfer_id": 6, "status_code": "OK", "recipient": "x", "sender": "y", "config_data": "so",
		"rejection_code": "NO", "account_id": "x", "debtor_info_iri": "", "debtor_info_content_type": "", "debtor_info_sha256": "",
		"transfer_note": "", "transfer_note_format": "", "creation_date": "2026-01-02", "acquired_amount": 3, "transfer_number": 2,
		"commit_period": 9, "transfer_note_max_bytes": 500, "ttl": 10, "min_locked_amount": 1, "max_locked_amount": 2, "max_commit_delay": 3,
	}
	for _, name := range []string{"ts", "config_ts", "prepared_at", "deadline", "final_interest_rate_ts", "last_change_ts",
		"last_interest_rate_change_ts", "last_config_ts", "last_transfer_committed_at", "committed_at"} {
		fields[name] = when
	}
	for _, name := range []string{"negligible_amount", "interest", "interest_rate", "demurrage_rate"} {
		fields[name] = json.RawMessage("0.0")
	}
	for _, name := range []string{"seqnum", "config_seqnum", "config_flags", "total_locked_amount", "locked_amount", "committed_amount",
		"principal", "last_change_seqnum", "last_config_seqnum", "last_transfer_number", "previous_transfer_number"} {
		fields[name] = 0
	}
	return fields
}()

// The messages queued for a peer leave the queue when it is deactivated: they are
// answered as if by the peer, with the same headers and routing key, if there is an
// answer, become dead letters if they could not have been sent, and are dropped
// otherwise. This is tested for each type of message and of node, on both brokers.
func TestDrain(t *testing.T) {
	t.Parallel()
	answers := map[string]string{
		smp.AccountUpdate: smp.ConfigureAccount, smp.PreparedTransfer: smp.FinalizeTransfer, smp.ConfigureAccount: smp.RejectedConfig,
	}
	for name, on := range bothBrokers {
		for _, pair := range [][2]nodetype.Type{{aa, ca}, {aa, da}, {ca, aa}, {da, aa}} {
			t.Run(fmt.Sprintf("%s/%s-%s", name, pair[0].Short(), pair[1].Short()), func(t *testing.T) {
				n, other, messages := waiting(t, pair[0], pair[1], on)
				view := viewOf(t, n, other)
				if _, err := n.DeactivatePeer(context.Background(), other.Identity().ID); err != nil {
					t.Fatal(err)
				}
				want := make(map[string]smp.Received)
				for _, m := range messages {
					if answers[m.Type] == "" {
						continue
					}
					want[answers[m.Type]] = answerOf(t, view, m)
				}
				answered := len(want)
				for _, got := range n.TakeEach(answered) {
					w, ok := want[got.Type]
					delete(want, got.Type)
					if !ok || got.RoutingKey != w.RoutingKey || got.ContentType != smp.ContentType || !sameBut(got.Body, w.Body, "ts") {
						t.Errorf("answer is %+v, want %+v", got, w)
					}
					headers := make(map[string]any)
					for _, h := range got.Headers {
						headers[h.Name] = h.Value
					}
					if !maps.Equal(headers, maps.Collect(w.Headers.All())) {
						t.Errorf("%s has headers %v, want %v", got.Type, headers, maps.Collect(w.Headers.All()))
					}
				}
				if len(want) > 0 {
					t.Errorf("not answered: %v", slices.Collect(maps.Keys(want)))
				}
				reasons := n.WaitDrained(other, 1)
				if !strings.Contains(reasons[0], "not valid JSON") {
					t.Errorf("set aside because of %q", reasons)
				}
				linktest.Eventually(t, "the report", func() error {
					counts := fmt.Sprintf("answered=%d dropped=%d set_aside=1", answered, len(messages)-answered)
					if log := n.Log.String(); !strings.Contains(log, counts) {
						return errors.New(log)
					}
					return nil
				})
			})
		}
	}
}

func viewOf(t *testing.T, n, other *linktest.Node) smp.View {
	t.Helper()
	p, err := n.Peer(other.Identity().ID)
	if err != nil {
		t.Fatal(err)
	}
	v, err := link.View(n.Dir, p)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// answerOf returns the message that the application must get for a queued message.
func answerOf(t *testing.T, v smp.View, m broker.Outgoing) smp.Received {
	t.Helper()
	body, err := v.Outgoing(m.Type, m.ContentType, m.Body)
	if err != nil {
		t.Fatal(err)
	}
	typ, body, err := smp.Answer(m.Type, body, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.Incoming(typ, smp.ContentType, body, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sameBut reports whether two JSON objects are equal except for one member.
func sameBut(a, b []byte, name string) bool {
	var x, y map[string]json.RawMessage
	if json.Unmarshal(a, &x) != nil || json.Unmarshal(b, &y) != nil {
		return false
	}
	delete(x, name)
	delete(y, name)
	return maps.EqualFunc(x, y, func(a, b json.RawMessage) bool { return string(a) == string(b) })
}

// A service that ends while it drains a queue loses no answer.
func TestDrainInterrupted(t *testing.T) {
	t.Parallel()
	for name, on := range bothBrokers {
		t.Run(name, func(t *testing.T) {
			n, other := linktest.NewOn(t, ca, on), linktest.New(t, aa)
			nodetest.Peer(t, n.Node, other.Node)
			n.Start()
			const count = 4000
			n.Put(other, numbered(t, n, other, 0, count)...)
			if _, err := n.DeactivatePeer(context.Background(), other.Identity().ID); err != nil {
				t.Fatal(err)
			}
			got := n.Take(1)
			if err := n.Stop(); err != nil {
				t.Fatal(err)
			}
			n.Start()
			for len(got) < count { // some may be answered twice
				maps.Copy(got, n.Take(count-len(got)))
			}
			n.WaitDrained(other, 0)
		})
	}
}

// While the application has not declared its inbox, answers cannot be stored: queued
// messages stay, and are answered afterwards.
func TestDrainWaitsForInbox(t *testing.T) {
	t.Parallel()
	rabbit := rabbittest.Get(t)
	n, other := linktest.NewOn(t, ca, linktest.RabbitMQ), linktest.New(t, aa)
	nodetest.Peer(t, n.Node, other.Node)
	n.Start()
	const count = 300
	n.Put(other, numbered(t, n, other, 0, count)...)
	conn, err := amqp.Dial(rabbit.URL())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ch, err := conn.Channel()
	if err != nil {
		t.Fatal(err)
	}
	inbox := ca.Inbox()
	if err := ch.ExchangeDelete(inbox, false, false); err != nil {
		t.Fatal(err)
	}
	if _, err := n.DeactivatePeer(context.Background(), other.Identity().ID); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the complaint", func() error {
		if !strings.Contains(n.Log.String(), "can not be drained") {
			return errors.New(n.Log.String())
		}
		return nil
	})
	if err := ch.ExchangeDeclare(inbox, "topic", true, false, false, false, nil); err != nil {
		t.Fatal(err)
	}
	if err := ch.QueueBind(inbox, "#", inbox, false, nil); err != nil {
		t.Fatal(err)
	}
	n.Take(count)
	n.WaitDrained(other, 0)
}

// Damage to a peer's files does not delay its deactivation. Draining, which needs the
// files, waits until they are repaired, and the log says so once.
func TestDrainDespiteDamage(t *testing.T) {
	t.Parallel()
	n, other, _ := waiting(t, aa, ca, linktest.Embedded)
	waitForLog(t, n, "peer is active") // there is a link that can be ended
	id := other.Identity().ID
	file := filepath.Join(n.Path(), "peers", id, "subnet.txt")
	good, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(n.Path(), "peers", id, "DEACTIVATED"), []byte("2026-11-23\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	logged := func(text string) func() error {
		return func() error {
			if !strings.Contains(n.Log.String(), text) {
				return errors.New(n.Log.String())
			}
			return nil
		}
	}
	linktest.Eventually(t, "the end of the link", logged("peer has been deactivated"))
	linktest.Eventually(t, "the complaint", logged("peer can not be brought up to date"))
	// Renamed, not written in place: an empty file would be another complaint.
	repaired := filepath.Join(t.TempDir(), "subnet.txt")
	if err := os.WriteFile(repaired, good, 0o644); err != nil {
		t.Fatal(err)
	}
	replace(t, repaired, file)
	n.TakeEach(2)
	n.WaitDrained(other, 1)
	if logged := strings.Count(n.Log.String(), "peer can not be brought up to date"); logged != 1 {
		t.Errorf("the damage is logged %d times:\n%s", logged, n.Log)
	}
}
