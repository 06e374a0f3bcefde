package cli

import (
	"context"
	"database/sql"
	"strings"
	"testing"
	"time"

	"peerlink/broker"
	"peerlink/broker/embedded"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// If a peer's queue cannot be bound, as on a disk that is completely full, bindInTime returns
// an error within seconds: "send" does not wait until the queue can be bound.
func TestBindInTime(t *testing.T) {
	d := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234").Dir
	path := storePath(t.TempDir())
	s, err := openStore(d, path, embedded.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	queue := func(name string) broker.PeerBinding {
		return broker.PeerBinding{PeerID: "p", Exchange: "x", Fanout: true, Queues: []string{name}}
	}
	if err := bindInTime(t.Context(), s, queue("q")); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	other, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := other.ExecContext(t.Context(), "BEGIN IMMEDIATE"); err != nil {
		t.Fatal(err)
	}
	defer other.ExecContext(context.Background(), "ROLLBACK")
	start := time.Now()
	if err := bindInTime(t.Context(), s, queue("q")); err != nil {
		t.Errorf("bound already: %v", err)
	}
	if err := bindInTime(t.Context(), s, queue("other")); err == nil || !strings.Contains(err.Error(), "not written within") {
		t.Errorf("got error %v, want one that contains \"not written within\"", err)
	}
	if took := time.Since(start); took > 3*maxBindTime {
		t.Errorf("bindInTime took %v, want at most %v", took, 3*maxBindTime)
	}
}
