package offline

import (
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// Filing an answer again changes nothing, also after a crash between the last
// two changes; another answer to the same request is refused.
func TestFilingTwice(t *testing.T) {
	n, items, _ := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	a, second := signed(t, r, n.Key), signed(t, r, n.Key)
	mustFile(t, n.Dir, a)
	after := snapshot(t, n.Path())
	for range 2 {
		if done := mustFile(t, n.Dir, a); len(done) != 0 {
			t.Errorf("%d items were filed again", len(done))
		}
		sameTree(t, n.Path(), after)
		writeFileT(t, string(r.Encode()), n.Path(), "db", "offline", r.ID+".json")
	}
	mustFile(t, n.Dir, a)
	if _, err := File(ctx, n.Dir, second, time.Now()); !errors.Is(err, errNotWaiting) {
		t.Errorf("another answer to the same request: %v", err)
	}
	sameTree(t, n.Path(), after)
}

// If the file of a request is lost, the waiting request can be written again
// unchanged. The answer to a forgotten request cannot be filed, and the serial
// numbers of that request are not used again.
func TestLostRequest(t *testing.T) {
	n, items, _ := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	waiting, err := WaitingRequests(n.Dir, time.Now())
	if err != nil || len(waiting) != 1 || string(waiting[0].Encode()) != string(r.Encode()) {
		t.Fatalf("the request is not waiting, or has changed: %v", err)
	}
	a := signed(t, waiting[0], n.Key)
	if err := Forget(ctx, n.Dir, r.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := File(ctx, n.Dir, a, time.Now()); !errors.Is(err, errNotWaiting) {
		t.Errorf("the forgotten request was filed: %v", err)
	}
	for _, id := range []string{r.ID, strings.Repeat("0", 32), "../nodeid", ""} {
		if err := Forget(ctx, n.Dir, id); !errors.Is(err, errNotWaiting) {
			t.Errorf("forget %q: %v", id, err)
		}
	}
	again := mustCollect(t, n.Dir, items...)
	used := map[string]bool{}
	for _, n := range []*big.Int{
		r.servers[0].serial, r.peers[0].serial, r.peers[1].serial,
		again.servers[0].serial, again.peers[0].serial, again.peers[1].serial,
	} {
		used[pki.SerialHex(n)] = true
	}
	if len(used) != 6 {
		t.Errorf("two requests for three certificates each have the serial numbers %v", used)
	}
	if again.peers[0].subnet != r.peers[0].subnet || again.info.date <= r.info.date {
		t.Errorf("subnet %s after %s, date %s after %s", again.peers[0].subnet, r.peers[0].subnet, again.info.date, r.info.date)
	}
	mustFile(t, n.Dir, signed(t, again, n.Key))
	checkOutputs(t, n.Dir, again)
}

// If an item cannot be filed, because a file exists already or a folder is missing,
// the other items are filed and nothing is overwritten. After the cause is removed,
// the answer can be filed again.
func TestObstacles(t *testing.T) {
	n, items, out := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	a := signed(t, r, n.Key)
	writeFileT(t, "precious", out, "server.crt")
	done, err := File(ctx, n.Dir, a, time.Now())
	if err == nil || len(done) != len(r.Summary()) {
		t.Fatalf("%d items, error %v", len(done), err)
	}
	for _, i := range done {
		if failed := i.Kind == KindServerCert; (i.State == Failed) != failed || (i.Err != nil) != failed || (i.Problem != "") != failed {
			t.Errorf("%v: %s, %v", i, i.State, i.Err)
		}
	}
	if got := string(readFileT(t, out, "server.crt")); got != "precious" {
		t.Error("a file was overwritten")
	}
	if err := errors.Join(os.Remove(filepath.Join(out, "server.crt")), os.Rename(out, out+".away")); err != nil {
		t.Fatal(err)
	}
	if _, err := File(ctx, n.Dir, a, time.Now()); err == nil || !strings.Contains(err.Error(), filepath.Join(out, "server.crt")+", which the request names") {
		t.Errorf("got error %v for a missing folder, want one that names the file", err)
	}
	if err := os.Rename(out+".away", out); err != nil {
		t.Fatal(err)
	}
	for _, i := range mustFile(t, n.Dir, a) {
		if want := map[bool]State{true: filed, false: alreadyFiled}[i.Kind == KindServerCert]; i.State != want {
			t.Errorf("%v: %s, want %s", i, i.State, want)
		}
	}
	checkOutputs(t, n.Dir, r)
}

// If the reference's init has released the subnet of a waiting request, filing the
// answer reserves it again. If another peer has got the subnet meanwhile, filing is
// refused: no subnet ever has two peers.
func TestReleasedSubnet(t *testing.T) {
	for _, taken := range []bool{false, true} {
		n := nodetest.New(t, aa, "aa.example.com:1234")
		bundle := readFileT(t, nodetest.New(t, da, "da.example.com:1234").Bundle(t))
		r := mustCollect(t, n.Dir, PeerCert{Bundle: bundle})
		a := signed(t, r, n.Key)
		pool := filepath.Join(n.Path(), "db", "subnets", "debtors")
		if err := os.Remove(filepath.Join(pool, r.peers[0].subnet)); err != nil {
			t.Fatal(err)
		}
		writeFileT(t, "-1\n", pool, "SEQNUM")
		if !taken {
			mustFile(t, n.Dir, a)
			checkOutputs(t, n.Dir, r)
			checkRecords(t, n.Dir, 2)
			continue
		}
		// The reference's scripts ignore waiting requests.
		requests := filepath.Join(n.Path(), "db", "offline")
		if err := os.Rename(requests, requests+".away"); err != nil {
			t.Fatal(err)
		}
		n.Sign(t, nodetest.New(t, da, "da.example.com:1234").Bundle(t))
		if err := os.Rename(requests+".away", requests); err != nil {
			t.Fatal(err)
		}
		before := snapshot(t, n.Path())
		done, err := File(ctx, n.Dir, a, time.Now())
		for _, part := range []string{r.peers[0].subnet, "request forget " + r.ID, "request new"} {
			if err == nil || len(done) != 1 || done[0].State != Failed || !strings.Contains(err.Error(), part) {
				t.Errorf("%+v, %v, want %q", done, err, part)
			}
		}
		sameTree(t, n.Path(), before)
		// Filing is refused also if the reservation was removed, but not the other
		// peer.
		if err := os.Remove(filepath.Join(pool, r.peers[0].subnet)); err != nil {
			t.Fatal(err)
		}
		if _, err := File(ctx, n.Dir, a, time.Now()); err == nil {
			t.Error("two peers have one subnet")
		}
		// The remedy that the error names works.
		if err := Forget(ctx, n.Dir, r.ID); err != nil {
			t.Fatal(err)
		}
		again := mustCollect(t, n.Dir, PeerCert{Bundle: bundle})
		if again.peers[0].subnet == r.peers[0].subnet {
			t.Errorf("the new request has the subnet %s of the other peer", r.peers[0].subnet)
		}
		mustFile(t, n.Dir, signed(t, again, n.Key))
		checkOutputs(t, n.Dir, again)
	}
}

// Repair keeps the reserved subnets of waiting requests, and releases those of
// forgotten requests.
func TestRepairKeepsReservations(t *testing.T) {
	n := nodetest.New(t, aa, "aa.example.com:1234")
	r := mustCollect(t, n.Dir, peerCertFor(t, nodetest.New(t, da, "da.example.com:1234")))
	if done, err := n.Repair(ctx); err != nil || len(done) != 0 {
		t.Errorf("repaired %q, %v", done, err)
	}
	if err := Forget(ctx, n.Dir, r.ID); err != nil {
		t.Fatal(err)
	}
	if done, err := n.Repair(ctx); err != nil || len(done) != 1 || !strings.Contains(done[0], r.peers[0].subnet) {
		t.Errorf("repaired %q, %v", done, err)
	}
}

// A node that became a peer while a request for its peer certificate was waiting
// keeps the certificate that it got meanwhile. A debtors agent never gets a second
// peer.
func TestPeeredMeanwhile(t *testing.T) {
	n, peer := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	r := mustCollect(t, n.Dir, peerCertFor(t, peer))
	n.Sign(t, peer.Bundle(t))
	before := readFileT(t, n.IssuedFile(peer.Identity().ID))
	done := mustFile(t, n.Dir, signed(t, r, n.Key))
	if len(done) != 1 || done[0].State != alreadyFiled {
		t.Errorf("%+v", done)
	}
	if string(before) != string(readFileT(t, n.IssuedFile(peer.Identity().ID))) {
		t.Error("the peer's certificate was replaced")
	}
	checkRecords(t, n.Dir, 3)

	agent := nodetest.New(t, da, "da.example.com:1234")
	r = mustCollect(t, agent.Dir, peerCertFor(t, n))
	another := nodetest.New(t, aa, "other.example.com:1234")
	agent.Sign(t, another.Bundle(t)) // has the same chosen ID; one of the two authorities is an impostor
	done, err := File(ctx, agent.Dir, signed(t, r, agent.Key), time.Now())
	if err == nil || len(done) != 1 || done[0].State != Failed || !strings.Contains(err.Error(), "break-in") {
		t.Errorf("%+v, %v", done, err)
	}
	if ids, err := agent.PeerIDs(); err != nil || len(ids) != 1 {
		t.Errorf("the debtors agent has the peers %v (%v)", ids, err)
	}
}

// A wrong clock of the offline machine is detected: by the offline machine if it is
// behind, and by the online machine if it was ahead.
func TestClock(t *testing.T) {
	n, items, _ := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	for _, past := range []time.Duration{time.Hour, 50 * 365 * 24 * time.Hour} {
		if _, err := ReadRequest(r.Encode(), time.Now().Add(-past)); !errors.Is(err, errClock) {
			t.Errorf("read %v before it was made: %v", past, err)
		}
	}
	if _, err := Fulfil(r, n.Key, time.Now().Add(-time.Hour)); !errors.Is(err, errClock) {
		t.Errorf("signed before it was made: %v", err)
	}
	if _, err := Fulfil(r, n.Key, time.Now().Add(-clockTolerance/2)); err != nil {
		t.Errorf("signed with a clock that is a little behind: %v", err)
	}
	before := snapshot(t, n.Path())
	a, err := Fulfil(r, n.Key, time.Now().Add(48*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := File(ctx, n.Dir, a, time.Now()); !errors.Is(err, errMismatch) || !strings.Contains(err.Error(), "clock") {
		t.Errorf("signed the day after tomorrow: %v", err)
	}
	sameTree(t, n.Path(), before)
}

// If Collect refuses an item, nothing is reserved.
func TestCollectRefuses(t *testing.T) {
	n, out := nodetest.New(t, aa, "aa.example.com:1234"), t.TempDir()
	other, known := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, ca, "ca.example.com:1234")
	n.Sign(t, known.Bundle(t))
	agent := nodetest.New(t, da, "da.example.com:1234")
	csr, path := serverCSR(t, n.Identity()), filepath.Join(out, "new.crt")
	writeFileT(t, "x", out, "there.crt")
	rootCSR := newRootCSR(t, n)
	tests := map[string][]Requested{
		"nothing":              nil,
		"too much":             make([]Requested, maxItems+1),
		"no CSR":               {ServerCert{CSR: []byte("x"), Days: 1, File: path}},
		"another node's CSR":   {ServerCert{CSR: serverCSR(t, other.Identity()), Days: 1, File: path}},
		"CSR of the root key":  {ServerCert{CSR: rootCSR, Days: 1, File: path}},
		"no days":              {ServerCert{CSR: csr, Days: 0, File: path}},
		"too many days":        {ServerCert{CSR: csr, Days: maxDays + 1, File: path}},
		"file exists":          {ServerCert{CSR: csr, Days: 1, File: filepath.Join(out, "there.crt")}},
		"one file twice":       {ServerCert{CSR: csr, Days: 1, File: path}, InfoBundle{File: path}},
		"two info-bundles":     {InfoBundle{File: path}, InfoBundle{File: path + "2"}},
		"no info-bundle":       {PeerCert{Bundle: []byte("x")}},
		"own info-bundle":      {peerCertFor(t, n)},
		"known peer":           {peerCertFor(t, known)},
		"peer twice":           {peerCertFor(t, other), peerCertFor(t, other)},
		"authority for itself": {peerCertFor(t, nodetest.New(t, aa, "x.example.com:1"))},
		"the last is wrong":    {peerCertFor(t, other), ServerCert{CSR: csr, Days: 1, File: path}, PeerCert{}},
	}
	n.Bundle(t) // its date is written now, not between the snapshots
	before := snapshot(t, n.Path())
	for name, items := range tests {
		if _, err := Collect(ctx, n.Dir, items, time.Now()); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	sameTree(t, n.Path(), before)

	before = snapshot(t, agent.Path())
	if _, err := Collect(ctx, agent.Dir, []Requested{peerCertFor(t, other)}, time.Now()); err == nil {
		t.Error("Collect accepts a creditors agent as the peer of a debtors agent")
	}
	sameTree(t, agent.Path(), before)
}

// If Collect finds no subnet for the second of two peers, or fails in a later step, it
// releases the subnet of the first.
func TestFailedCollectReleasesSubnets(t *testing.T) {
	n := nodetest.New(t, aa, "aa.example.com:1234")
	first, second := nodetest.New(t, da, "da.example.com:1234"), nodetest.New(t, da, "da.example.com:1234")
	if err := os.MkdirAll(filepath.Join(n.Path(), "db", "subnets", "debtors"), 0o755); err != nil {
		t.Fatal(err)
	}
	for i := range 255 { // all but one
		writeFileT(t, "x\n", n.Path(), "db", "subnets", "debtors", fmt.Sprintf("%s%02x", n.Identity().ID, i))
	}
	reserved := func() int {
		files, err := filepath.Glob(filepath.Join(n.Path(), "db", "subnets", "debtors", n.Identity().ID+"*"))
		if err != nil {
			t.Fatal(err)
		}
		return len(files)
	}
	_, err := Collect(ctx, n.Dir, []Requested{peerCertFor(t, first), peerCertFor(t, second)}, time.Now())
	if err == nil || !strings.Contains(err.Error(), "no free subnet is left") || reserved() != 255 {
		t.Errorf("two peers for one subnet: %v, %d reserved", err, reserved())
	}
	if _, err := collect(ctx, n.Dir, []Requested{peerCertFor(t, first)}, time.Now(), crashAt(1)); !errors.Is(err, errCrash) || reserved() != 255 {
		t.Errorf("failure after the reservation: %v, %d reserved", err, reserved())
	}
	if r := mustCollect(t, n.Dir, peerCertFor(t, second)); r.peers[0].subnet != n.Identity().ID+"ff" {
		t.Errorf("the second peer gets the subnet %s, want %sff", r.peers[0].subnet, n.Identity().ID)
	}
	// A subnet that the peer has had before stays reserved for it.
	if err := Forget(ctx, n.Dir, mustCollect(t, n.Dir, peerCertFor(t, second)).ID); err != nil {
		t.Fatal(err)
	}
	if _, err := Collect(ctx, n.Dir, []Requested{peerCertFor(t, second), peerCertFor(t, first)}, time.Now()); err == nil || reserved() != 256 {
		t.Errorf("a peer with a subnet and one without: %v, %d reserved", err, reserved())
	}
}

// A copy of the node's directory on the offline machine reveals an online machine
// whose directory is outdated, or that is controlled by an attacker.
func TestCheckConflicts(t *testing.T) {
	n, items, _ := fullRequest(t)
	copied := copyTree(t, n.Path())
	r := mustCollect(t, n.Dir, items...)
	if err := r.CheckConflicts(ctx, copied); err != nil {
		t.Errorf("an older copy: %v", err)
	}
	n.Sign(t, nodetest.New(t, ca, "x.example.com:1").Bundle(t))
	mustFile(t, n.Dir, signed(t, r, n.Key))
	if err := r.CheckConflicts(ctx, n.Dir); err == nil || !strings.Contains(err.Error(), "used before") {
		t.Errorf("used serial numbers: %v", err)
	}
	// The online machine's directory is outdated: it lacks the peers, and reserves
	// their subnets for another one.
	r = mustCollect(t, copied, peerCertFor(t, nodetest.New(t, ca, "y.example.com:1")))
	if err := r.CheckConflicts(ctx, n.Dir); err == nil || !strings.Contains(err.Error(), "subnet 000001") {
		t.Errorf("subnet of another peer: %v", err)
	}
	agent := nodetest.New(t, ca, "ca.example.com:1234")
	r = mustCollect(t, agent.Dir, peerCertFor(t, nodetest.New(t, aa, "evil.example.com:1")))
	agent.Sign(t, n.Bundle(t))
	if err := r.CheckConflicts(ctx, agent.Dir); err == nil || !strings.Contains(err.Error(), "break-in") {
		t.Errorf("another root certificate under a known node ID: %v", err)
	}
	if err := r.CheckConflicts(ctx, n.Dir); err == nil {
		t.Error("the directory of another node was accepted")
	}
}
