package link_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/link"
	"peerlink/link/linktest"
)

// While a link is suspended, no message passes in either direction, both sides say why, and nothing is lost or
// becomes a dead letter: what was queued before and meanwhile arrives once the link is resumed. No service is restarted.
func TestSuspend(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	id := other.Identity().ID
	outBecomes(t, authority, other, link.VerdictLinked, "")
	inBecomes(t, authority, other, link.VerdictLinked, "")

	if err := authority.SuspendPeer(t.Context(), id, "maintenance until 14:00"); err != nil {
		t.Fatal(err)
	}
	remedy(t, outBecomes(t, authority, other, link.VerdictSuspended, "maintenance until 14:00").Out, "peerlink peer resume "+id)
	if st := inBecomes(t, authority, other, link.VerdictSuspended, ""); st.State != "suspended" {
		t.Errorf("the state is %s", st.State)
	}
	outBecomes(t, other, authority, link.VerdictSuspended, "Reason: maintenance until 14:00")
	linktest.Eventually(t, "the end of all connections", func() error {
		for _, n := range []*linktest.Node{authority, other} {
			if conns := n.Service.Status().Peers[0].Connections; len(conns) > 0 {
				return fmt.Errorf("%v has %+v", n.Identity(), conns)
			}
		}
		return nil
	})
	authority.Put(other, linktest.Message(t, authority, other, 1))
	other.Put(authority, linktest.Message(t, other, authority, 2))
	outBecomes(t, other, authority, link.VerdictSuspended, "") // also with a message to send
	for _, n := range []*linktest.Node{authority, other} {
		if c := n.Service.Status().Peers[0].Counts; c.Sent > 0 || c.SetAside > 0 {
			t.Errorf("%v has sent: %+v", n.Identity(), c)
		}
	}

	if changed, err := authority.ResumePeer(t.Context(), id); err != nil || !changed {
		t.Fatalf("resume: %v, %v", changed, err)
	}
	for from, to := range map[*linktest.Node]*linktest.Node{authority: other, other: authority} {
		outBecomes(t, from, to, link.VerdictLinked, "")
		to.Take(1)
		from.WaitDrained(to, 0)
	}
}

// A service that starts while the link is suspended sends nothing, and keeps the messages. Whatever the file
// SUSPENDED holds, the link is suspended.
func TestSuspendedAtStart(t *testing.T) {
	t.Parallel()
	for name, content := range map[string]string{"empty": "", "no date": "x\ny\n", "control characters": "2026-13-30\n\x1b[31mred\n", "long": strings.Repeat("x", 5000)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			authority, other := linktest.Pair(t, da)
			outBecomes(t, authority, other, link.VerdictLinked, "")
			if err := authority.Stop(); err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(authority.Path(), "peers", other.Identity().ID, "SUSPENDED")
			if err := os.WriteFile(file, []byte(content), 0o644); err != nil {
				t.Fatal(err)
			}
			authority.Start()
			st := outBecomes(t, authority, other, link.VerdictSuspended, "unknown date")
			if strings.ContainsRune(st.Out.Reason, '\x1b') {
				t.Errorf("reason %q", st.Out.Reason)
			}
			authority.Put(other, linktest.Message(t, authority, other, 1))
			outBecomes(t, other, authority, link.VerdictSuspended, "")
			if err := os.Remove(file); err != nil {
				t.Fatal(err)
			}
			other.Take(1)
		})
	}
}

// A deactivation of a suspended peer is final: resuming does not bring the link back.
func TestDeactivateSuspended(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	id := other.Identity().ID
	if err := authority.SuspendPeer(t.Context(), id, ""); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, authority, other, link.VerdictSuspended, "")
	if _, err := authority.DeactivatePeer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, authority, other, link.VerdictDeactivated, "")
	if _, err := authority.ResumePeer(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	outBecomes(t, other, authority, link.VerdictNotRegistered, "")
	if err := authority.SuspendPeer(t.Context(), id, ""); err == nil {
		t.Error("a deactivated peer was suspended")
	}
	if st := authority.Service.Status().Peers[0]; st.State != "deactivated" {
		t.Errorf("the state is %s", st.State)
	}
}
