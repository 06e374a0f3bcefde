package smp

import (
	"encoding/json"
	"testing"
	"time"
)

// valid returns a valid message of a type from the vectors, as sent by an owner whose peer
// is an authority or a creditors agent, and the owner's view.
func valid(t testing.TB, owner, direction, typ string) (View, []byte) {
	t.Helper()
	for _, c := range readVectors(t).Messages {
		if c.Label == "valid" && c.Context.OwnerType == owner && c.Direction == direction && c.Type == typ {
			return c.view(t), []byte(c.Body)
		}
	}
	t.Fatalf("no valid %s %s %s among the vectors", owner, direction, typ)
	return View{}, nil
}

func BenchmarkOutgoing(b *testing.B) {
	for _, c := range []struct{ owner, typ string }{{"CA", PrepareTransfer}, {"AA", AccountUpdate}} {
		b.Run(c.typ, func(b *testing.B) {
			view, body := valid(b, c.owner, "out", c.typ)
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := view.Outgoing(c.typ, ContentType, body); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkIncoming(b *testing.B) {
	for _, c := range []struct{ owner, typ string }{{"AA", PrepareTransfer}, {"CA", AccountUpdate}} {
		b.Run(c.typ, func(b *testing.B) {
			view, body := valid(b, c.owner, "in", c.typ)
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := view.Incoming(c.typ, ContentType, body, arrival); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkPeekIDs(b *testing.B) {
	_, body := valid(b, "CA", "out", PrepareTransfer)
	b.ReportAllocs()
	for b.Loop() {
		if _, _, _, err := PeekIDs(body); err != nil {
			b.Fatal(err)
		}
	}
}

// BenchmarkEncodingJSON measures how long the standard library takes to decode and encode
// a PrepareTransfer without validation, to compare the scanner with.
func BenchmarkEncodingJSON(b *testing.B) {
	type prepareTransfer struct {
		Type                 *string    `json:"type"`
		DebtorID             *int64     `json:"debtor_id"`
		CreditorID           *int64     `json:"creditor_id"`
		CoordinatorType      *string    `json:"coordinator_type"`
		CoordinatorID        *int64     `json:"coordinator_id"`
		CoordinatorRequestID *int64     `json:"coordinator_request_id"`
		MinLockedAmount      *int64     `json:"min_locked_amount"`
		MaxLockedAmount      *int64     `json:"max_locked_amount"`
		Recipient            *string    `json:"recipient"`
		FinalInterestRateTS  *time.Time `json:"final_interest_rate_ts"`
		MaxCommitDelay       *int32     `json:"max_commit_delay"`
		TS                   *time.Time `json:"ts"`
	}
	_, body := valid(b, "CA", "out", PrepareTransfer)
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		var m prepareTransfer
		if err := json.Unmarshal(body, &m); err != nil {
			b.Fatal(err)
		}
		if _, err := json.Marshal(&m); err != nil {
			b.Fatal(err)
		}
	}
}

// Invariant: a message costs one allocation for its body, and one for its routing key if
// it has one; this limits garbage collection.
func TestAllocations(t *testing.T) {
	sender, body := valid(t, "CA", "out", PrepareTransfer)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := sender.Outgoing(PrepareTransfer, ContentType, body); err != nil {
			t.Fatal(err)
		}
	}); n > 1 {
		t.Errorf("Outgoing allocates %v times", n)
	}
	receiver, body := valid(t, "AA", "in", PrepareTransfer)
	if n := testing.AllocsPerRun(100, func() {
		if _, err := receiver.Incoming(PrepareTransfer, ContentType, body, arrival); err != nil {
			t.Fatal(err)
		}
	}); n > 2 {
		t.Errorf("Incoming allocates %v times", n)
	}
}
