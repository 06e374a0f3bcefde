package embedded

import (
	"io"
	"log/slog"
	"path/filepath"
	"sync"
	"testing"

	"peerlink/broker"
	"peerlink/broker/brokertest"
)

// The store has the behaviour that every broker must have.
func TestBroker(t *testing.T) {
	t.Parallel()
	brokertest.Run(t, func(t *testing.T) brokertest.Fixture {
		path := filepath.Join(t.TempDir(), "messages.db")
		s := openSmall(t, path)
		return brokertest.Fixture{
			Broker: s,
			Send: func(t testing.TB, exchange, key string, ms ...broker.Outgoing) error {
				return sendAll(t, s, exchange, key, ms)
			},
			Receive: func(t testing.TB, n int) []broker.Incoming { return receive(t, s, n) },
			DeadLetters: func(t testing.TB, queue string) []brokertest.DeadLetter {
				var aside []brokertest.DeadLetter
				for m, err := range s.List(testContext(t), queue) {
					if err != nil {
						t.Fatal(err)
					}
					aside = append(aside, brokertest.DeadLetter{Outgoing: m.Outgoing, Reason: m.Reason})
				}
				return aside
			},
			Reopen: func(t testing.TB) broker.Broker {
				if err := s.Close(); err != nil {
					t.Fatal(err)
				}
				s = openSmall(t, path)
				return s
			},
			Stall: func(t testing.TB) func() { return lockFile(t, s) },
		}
	})
}

func openSmall(t testing.TB, path string) *Store {
	t.Helper()
	return openFile(t, path, Options{MaxPending: 100, Logger: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// sendAll sends messages as an application does, and waits for all results.
func sendAll(t testing.TB, s *Store, exchange, key string, ms []broker.Outgoing) error {
	var (
		wg     sync.WaitGroup
		mu     sync.Mutex
		failed error
	)
	for _, m := range ms {
		wg.Add(1)
		if err := s.Send(testContext(t), exchange, key, m, func(err error) {
			defer wg.Done()
			mu.Lock()
			defer mu.Unlock()
			if failed == nil {
				failed = err
			}
		}); err != nil {
			return err
		}
	}
	wg.Wait()
	return failed
}

// receive consumes messages of the inbox as an application does.
func receive(t testing.TB, s *Store, n int) []broker.Incoming {
	t.Helper()
	sub := s.Subscribe("accounts_in")
	defer sub.Close()
	var got []broker.Incoming
	for len(got) < n {
		ms, err := sub.Next(testContext(t), n-len(got))
		if err != nil {
			t.Fatalf("after %d of %d received messages: %v", len(got), n, err)
		}
		var seqs []uint64
		for _, m := range ms {
			got = append(got, m.Incoming)
			seqs = append(seqs, m.Seq)
		}
		if err := sub.Ack(seqs, nil); err != nil {
			t.Fatal(err)
		}
	}
	return got
}
