package link

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// sweepTest is a service of an authority with six peers, of which it looks at one in each poll.
type sweepTest struct {
	*testing.T
	r       *reconciler
	dir     string
	members []nodetest.Member
}

func newSweepTest(t *testing.T) *sweepTest {
	t.Helper()
	authority := nodetest.New(t, nodetype.AccountingAuthority, "localhost:1234")
	server := func(int) (string, string) { return "localhost:1", "localhost:1234" }
	st := &sweepTest{t, newReconciler(newShared(Config{Dir: authority.Dir})), authority.Path(), nodetest.NewMembers(t, authority, 6, server)}
	st.r.receiveOnly = true
	st.r.sweep.peersPerPoll = 1
	t.Cleanup(st.r.sweep.close)
	st.poll()
	for _, m := range st.members {
		if st.r.peers.get(m.ID).state.Load() == nil {
			t.Fatal("a peer is not active after the first poll")
		}
	}
	return st
}

func (st *sweepTest) poll() {
	st.Helper()
	if err := st.r.reconcile(st.Context(), st.Context()); err != nil {
		st.Fatal(err)
	}
}

// write writes a file of a peer, replacing it or in place.
func (st *sweepTest) write(id, name, content string, inPlace bool) {
	st.Helper()
	path := filepath.Join(st.dir, "peers", id, filepath.FromSlash(name))
	target := path
	if !inPlace {
		target += ".new"
	}
	if err := os.WriteFile(target, []byte(content), 0o600); err != nil {
		st.Fatal(err)
	}
	if !inPlace {
		if err := os.Rename(target, path); err != nil {
			st.Fatal(err)
		}
	}
}

// server returns the first server in the peer's stomp.toml when it was read last.
func (st *sweepTest) server(id string) string {
	return st.r.peers.get(id).lastContent.Load().Stomp.Servers[0]
}

// awaitReported polls until f reports true. The polls look at the first peer only, and at those of
// which a change is reported.
func (st *sweepTest) awaitReported(what string, f func() bool) {
	st.Helper()
	for deadline := time.Now().Add(30 * time.Second); !f(); st.poll() {
		if time.Now().After(deadline) {
			st.Fatalf("%s is not reported", what)
		}
		st.r.sweep.next = 0
		time.Sleep(time.Millisecond) // the operating system reports changes a moment later
	}
}

// others returns the IDs of all peers but the first.
func (st *sweepTest) others() []string { return slices.Clone(st.r.sweep.ids[1:]) }

func stompTOML(server string) string {
	return string(node.EncodeStompTOML(nodetype.CreditorsAgent, []string{server}))
}

// With more peers than are looked at in each poll, every change of a peer's files that the operating
// system reports is applied, even if the file is changed in place, or the folder is another one.
func TestSweepReported(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("skipped: changes are reported on Linux only")
	}
	st := newSweepTest(t)
	n := 100
	for range 2 { // the second time in the folders that have taken the place of others
		for _, inPlace := range []bool{true, false} {
			for _, id := range st.others() {
				n++
				want := fmt.Sprintf("localhost:%d", n)
				st.write(id, "nodeinfo/stomp.toml", stompTOML(want), inPlace)
				st.awaitReported("a changed file", func() bool { return st.server(id) == want })
			}
		}
		for _, id := range st.others() {
			n++
			want := fmt.Sprintf("localhost:%d", n)
			peer := filepath.Join(st.dir, "peers", id)
			for i, folder := range []string{filepath.Join(peer, "nodeinfo"), peer} {
				st.rename(folder, folder+".old")
				if err := os.CopyFS(folder, os.DirFS(folder+".old")); err != nil {
					t.Fatal(err)
				}
				if i == 0 {
					st.write(id, "nodeinfo/stomp.toml", stompTOML(want), true)
				}
				st.awaitReported("another folder", func() bool { return st.server(id) == want })
			}
			st.awaitReported("another folder", func() bool { return st.r.peers.get(id).missing == 0 && st.r.sweep.watched[id] })
		}
	}
	emptied := filepath.Join(st.dir, "peers", st.others()[1])
	if err := os.CopyFS(filepath.Join(st.dir, "emptied"), os.DirFS(emptied)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"root-ca.crt", "peercert.crt", "sub-ca.crt"} {
		if err := os.Remove(filepath.Join(emptied, name)); err != nil {
			t.Fatal(err)
		}
	}
	st.awaitReported("the removal of a peer's files", func() bool { return st.r.peers.get(filepath.Base(emptied)).gone.Load() })
	st.rename(filepath.Join(st.dir, "emptied"), emptied)
	st.awaitReported("a peer's files", func() bool { return st.r.peers.get(filepath.Base(emptied)).state.Load() != nil })
	gone := st.others()[0]
	st.rename(filepath.Join(st.dir, "peers", gone), filepath.Join(st.dir, "gone"))
	st.awaitReported("the removal of a peer", func() bool { return st.r.peers.get(gone).gone.Load() })
	st.rename(filepath.Join(st.dir, "gone"), filepath.Join(st.dir, "peers", gone))
	st.awaitReported("a new peer", func() bool { return st.r.peers.get(gone).state.Load() != nil })
	st.rename(filepath.Join(st.dir, "peers"), filepath.Join(st.dir, "peers.old"))
	if err := os.CopyFS(filepath.Join(st.dir, "peers"), os.DirFS(filepath.Join(st.dir, "peers.old"))); err != nil {
		t.Fatal(err)
	}
	for _, id := range st.others() {
		st.write(id, "nodeinfo/stomp.toml", stompTOML("localhost:99"), true)
		st.awaitReported("a change after the replacement of all peers", func() bool { return st.server(id) == "localhost:99" })
	}
}

// A change that is reported while the peers can not be listed is applied when they can be again.
func TestSweepAfterError(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("skipped: changes are reported on Linux only")
	}
	st := newSweepTest(t)
	peers, away := filepath.Join(st.dir, "peers"), filepath.Join(st.dir, "peers.away")
	id := st.others()[0]
	st.write(id, "nodeinfo/stomp.toml", stompTOML("localhost:100"), true)
	st.rename(peers, away)
	if err := os.WriteFile(peers, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := st.r.reconcile(st.Context(), st.Context()); err == nil {
		t.Fatal("a file in the place of the folder of peers is no error")
	}
	if err := os.Remove(peers); err != nil {
		t.Fatal(err)
	}
	st.rename(away, peers)
	st.awaitReported("a change before an error", func() bool { return st.server(id) == "localhost:100" })
}

func (st *sweepTest) rename(from, to string) {
	st.Helper()
	if err := os.RemoveAll(to); err != nil {
		st.Fatal(err)
	}
	if err := os.Rename(from, to); err != nil {
		st.Fatal(err)
	}
}

// A change that the operating system does not report is applied when each peer was looked at once.
func TestSweepUnreported(t *testing.T) {
	t.Parallel()
	st := newSweepTest(t)
	st.r.sweep.close()
	st.r.sweep.unwatchable = true
	for _, m := range st.members {
		st.write(m.ID, "nodeinfo/stomp.toml", stompTOML("localhost:100"), true)
		for polls := 0; st.server(m.ID) != "localhost:100"; polls++ {
			if polls > len(st.members) {
				t.Fatalf("a change is not applied after %d polls", polls)
			}
			st.poll()
		}
	}
}
