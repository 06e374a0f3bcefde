package rabbitmq

import (
	"errors"
	"math/rand/v2"
	"testing"

	amqp "github.com/rabbitmq/amqp091-go"
)

// For any order of confirmations and dead letters, exactly those messages are acknowledged
// that were confirmed or whose copies in the dead-letter queue were confirmed, each once.
func FuzzLedger(f *testing.F) {
	f.Add([]byte{0, 0, 0, 1, 9, 3, 1, 2, 3, 5, 4, 1, 0, 5})
	f.Fuzz(checkUnacked)
}

// The same invariant for random sequences.
func TestLedger(t *testing.T) {
	random := rand.NewChaCha8([32]byte{})
	for range 5000 {
		ops := make([]byte, 100)
		random.Read(ops)
		checkUnacked(t, ops)
	}
}

// checkUnacked executes ops, and compares with a simple model.
func checkUnacked(t *testing.T, ops []byte) {
	const free, pending, failed, done, acked = 0, 1, 2, 3, 4
	var (
		l                              = newUnacked()
		state                          = make(map[uint64]int) // of tags
		received, delivered, confirmed uint64
	)
	arg := func() uint64 {
		if len(ops) == 0 {
			return 0
		}
		n := uint64(ops[0] % 16)
		ops = ops[1:]
		return n
	}
	acknowledge := func() {
		for {
			tag, multiple, ok := l.nextAck()
			if !ok {
				return
			}
			from := tag
			if multiple {
				from = 1
			}
			if state[tag] == acked {
				t.Fatalf("tag %d is acknowledged twice", tag)
			}
			for n := from; n <= tag; n++ {
				if state[n] == pending || state[n] == failed || state[n] == free && n > confirmed {
					t.Fatalf("tag %d is acknowledged in state %d, %d are confirmed", n, state[n], confirmed)
				}
				state[n] = acked
			}
		}
	}
	for len(ops) > 0 {
		op := ops[0]
		ops = ops[1:]
		switch op % 6 {
		case 0:
			received++
			if err := l.add(amqp.Delivery{DeliveryTag: received}); err != nil {
				t.Fatal(err)
			}
		case 1:
			for _, d := range l.deliver(int(arg()) + 1) {
				if delivered++; d.Tag != delivered {
					t.Fatalf("tag %d is delivered after %d", d.Tag, delivered-1)
				}
			}
		case 2:
			tag := arg()
			if err := l.confirm(tag); (err == nil) != (tag <= delivered) {
				t.Fatalf("confirm %d of %d: %v", tag, delivered, err)
			} else if err == nil {
				confirmed = max(confirmed, tag)
			}
		case 3:
			tag := arg()
			d, err := l.startMove(tag)
			if want := state[tag] == failed || tag > confirmed && tag <= delivered && state[tag] == free; (err == nil) != want {
				t.Fatalf("dead letter %d in state %d, %d are confirmed: %v", tag, state[tag], confirmed, err)
			} else if err == nil {
				if d.DeliveryTag != tag {
					t.Fatalf("dead letter %d gave %d", tag, d.DeliveryTag)
				}
				state[tag] = pending
			}
		case 4:
			tag, ok := arg(), arg()%2 == 0
			if state[tag] != pending {
				continue
			}
			l.finishMove(tag, ok)
			if state[tag] = failed; ok {
				state[tag] = done
			}
		case 5:
			acknowledge()
		}
	}
	for tag, s := range state {
		if s == pending {
			l.finishMove(tag, true)
			state[tag] = done
		}
	}
	acknowledge()
	left := 0
	for tag := uint64(1); tag <= received; tag++ {
		if state[tag] == acked || state[tag] == failed {
			continue
		}
		left++
		if tag <= confirmed || state[tag] == done {
			t.Errorf("tag %d is left in state %d, %d are confirmed", tag, state[tag], confirmed)
		}
	}
	if kept := l.bytes - len(l.held)*bytesOf(amqp.Delivery{}); kept != len(l.excluded)*bytesOf(amqp.Delivery{}) {
		t.Errorf("%d bytes are counted for %d and %d messages", l.bytes, len(l.held), len(l.excluded))
	}
	if len(l.held) != left {
		t.Errorf("%d messages are held, want %d", len(l.held), left)
	}
	if l.waiting() != (delivered < received) {
		t.Errorf("waiting is %v, %d of %d messages are delivered", l.waiting(), delivered, received)
	}
}

// A gap in the delivery tags is detected: a multiple acknowledgement would remove messages
// that were not received.
func TestLedgerGap(t *testing.T) {
	for _, tag := range []uint64{0, 1, 3} {
		l := newUnacked()
		if err := l.add(amqp.Delivery{DeliveryTag: 1}); err != nil {
			t.Fatal(err)
		}
		if err := l.add(amqp.Delivery{DeliveryTag: tag}); err == nil {
			t.Errorf("add accepts tag %d after 1", tag)
		}
	}
}

// Tags of another consumer of the channel are no gap, in any order.
func TestLedgerPass(t *testing.T) {
	l := newUnacked()
	l.skipTag(3)
	l.skipTag(2)
	for _, tag := range []uint64{1, 4, 5} {
		if err := l.add(amqp.Delivery{DeliveryTag: tag}); err != nil {
			t.Error(err)
		}
	}
	l.skipTag(6)
	if err := l.add(amqp.Delivery{DeliveryTag: 8}); err == nil || len(l.others) != 0 {
		t.Errorf("a gap behind them: got %v; %d tags are left", err, len(l.others))
	}
}

// A message that is not held, because it was confirmed or never delivered, is not excluded, also
// while others are.
func TestExcludeNotHeld(t *testing.T) {
	l := newUnacked()
	if err := l.add(amqp.Delivery{DeliveryTag: 1}); err != nil {
		t.Fatal(err)
	}
	l.deliver(1)
	if err := l.excludeWithin(1, 1<<20); err != nil {
		t.Fatal(err)
	}
	for _, tag := range []uint64{0, 2} {
		if err := l.excludeWithin(tag, 1<<20); !errors.Is(err, errNotDelivered) {
			t.Errorf("tag %d: got %v, want errNotDelivered", tag, err)
		}
	}
}
