package smp

import (
	"encoding/json"
	"errors"
	"testing"

	"peerlink/internal/costtest"
	"peerlink/node/nodetype"
)

// FuzzMessage passes any bytes to any view, as any type, in both directions.
//
// Invariants: the result is a well-formed error or a body, never a panic. A body is JSON
// of permitted length. It is parsed and written to the same bytes if nothing is
// translated. The peer accepts what a node sends, unless the coordinator or the sender's
// clock is wrong, which only the peer checks. Translated IDs are in the ranges of the
// receiver.
func FuzzMessage(f *testing.F) {
	for _, c := range readVectors(f).Messages {
		for i := range 6 { // the views below
			if c.Result != nil {
				f.Add(uint8(i), c.Type, []byte(c.Body))
			}
		}
	}
	ca, aa := peers(f, "000008", "000001", "1234abcd")
	caTop, aaTop := peers(f, "800008", "f00001", "1234abcd")
	aaOfDA := View{
		Owner: nodetype.AccountingAuthority, Peer: nodetype.DebtorsAgent,
		PeerCreditors: exactly(0), PeerDebtors: mustParseSubnet(f, "1234abcd00"),
	}
	views := []View{ca, aa, caTop, aaTop, aaOfDA, aaOfDA.reversed()}
	f.Fuzz(func(t *testing.T, i uint8, typ string, body []byte) {
		view := views[int(i)%len(views)]
		translates := view.Owner == nodetype.CreditorsAgent

		costtest.Check(t, "a message", func() {
			_, _ = view.Outgoing(typ, ContentType, body)
			_, _ = view.Incoming(typ, ContentType, body, arrival)
		})
		out, err := view.Outgoing(typ, ContentType, body)
		if err != nil {
			checkHarmless(t, err)
		} else {
			checkBody(t, typ, out)
			if len(out) > MaxBody {
				t.Fatalf("%d bytes to send", len(out))
			}
			if again, err := view.Outgoing(typ, ContentType, out); !translates && (err != nil || string(again) != string(out)) {
				t.Fatalf("sent\n%s\nread again as\n%s, %v", out, again, err)
			}
			arrived, err := view.reversed().Incoming(typ, ContentType, out, arrival)
			// A creditors agent cannot issue: its translated message would be
			// inconsistent.
			issued := translates && errors.Is(err, errField)
			switch {
			case issued, errors.Is(err, errCoordinator), errors.Is(err, errFuture):
			case err != nil:
				t.Fatalf("sent\n%s\nrefused: %v", out, err)
			case view.Peer != nodetype.CreditorsAgent && string(arrived.Body) != string(out):
				t.Fatalf("sent\n%s\narrived as\n%s", out, arrived.Body)
			}
		}

		r, err := view.Incoming(typ, ContentType, body, arrival)
		if err != nil {
			checkHarmless(t, err)
			return
		}
		checkBody(t, typ, r.Body)
		if len(r.Body) > len(body)+maxGrowth {
			t.Fatalf("%d bytes became %d", len(body), len(r.Body))
		}
		h := r.Headers
		if translates {
			if !view.OwnerCreditors.Contains(h.CreditorID) || h.CoordinatorType != "" && !view.OwnerCreditors.Contains(h.CoordinatorID) {
				t.Fatalf("arrived with %+v", h)
			}
		} else if len(r.Body) <= MaxBody {
			again, err := view.Incoming(typ, ContentType, r.Body, arrival)
			if err != nil || string(again.Body) != string(r.Body) || again.RoutingKey != r.RoutingKey || again.Headers != h {
				t.Fatalf("received\n%s\nread again as\n%s, %v", r.Body, again.Body, err)
			}
		}
		if h.MessageType != typ || !view.PeerDebtors.Contains(h.DebtorID) {
			t.Fatalf("arrived with %+v", h)
		}
	})
}

// maxGrowth bounds by how much a received message may grow: the difference between each
// field's shortest and longest form; not all of them occur together.
const maxGrowth = maxFields * 24

// checkBody fails the test unless body is a JSON object of the type that the standard
// library and PeekIDs parse alike.
func checkBody(t *testing.T, typ string, body []byte) {
	t.Helper()
	var m struct {
		Type       string
		DebtorID   int64 `json:"debtor_id"`
		CreditorID int64 `json:"creditor_id"`
	}
	if err := json.Unmarshal(body, &m); err != nil || m.Type != typ {
		t.Fatalf("%v in\n%s", err, body)
	}
	if typ, debtor, creditor, err := PeekIDs(body); typ != m.Type || debtor != m.DebtorID || creditor != m.CreditorID || err != nil {
		t.Fatalf("peeked %s, %d, %d, %v in\n%s", typ, debtor, creditor, err, body)
	}
}
