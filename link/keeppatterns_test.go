package link_test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
)

// The record of the patterns of queues is complete again after the directory has been replaced by
// a copy without it: after a change of the pattern, the queues of an earlier one would not be
// found.
func TestQueuePatternsAreKept(t *testing.T) {
	t.Parallel()
	n := linktest.New(t, aa)
	n.Config.QueuePattern, n.Config.FormerQueuePatterns = "new.{node-id}.{n}", []link.QueuePattern{"old.{node-id}.{n}"}
	n.Config.KeepQueuePatterns = true
	if err := n.RecordQueuePatterns(t.Context(), "new.{node-id}.{n}"); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(n.Path(), "db", "queue-patterns.txt")
	n.Start()
	healthIs(t, n, "")
	for _, content := range []string{"", "another.{node-id}.{n}\n"} {
		var err error
		if content == "" {
			err = os.Remove(file)
		} else {
			err = os.WriteFile(file, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
		linktest.Eventually(t, "the record", func() error {
			got, err := n.QueuePatterns()
			if err != nil || !slices.Contains(got, "old.{node-id}.{n}") || !slices.Contains(got, "new.{node-id}.{n}") {
				return fmt.Errorf("%q, %v", got, err)
			}
			return nil
		})
	}
}
