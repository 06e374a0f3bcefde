package node_test

import (
	"slices"
	"testing"

	"peerlink/node/nodetest"
)

// Every pattern is recorded once and unchanged, also one with spaces.
func TestQueuePatterns(t *testing.T) {
	a := nodetest.New(t, aa, "aa.example.com:1234")
	want := []string{"aa.{node-id}", "to the peer {node-id} {n}"}
	for range 2 {
		for _, pattern := range want {
			if err := a.RecordQueuePatterns(ctx, pattern); err != nil {
				t.Fatal(err)
			}
		}
	}
	if got, err := a.QueuePatterns(); err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
}
