package offline

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
	"peerlink/node/signrecord"
)

// recordSigned records a request as signed in the offline machine's copy of the
// directory.
func recordSigned(t *testing.T, r *Request, d *node.Dir) {
	t.Helper()
	if err := r.CheckConflicts(ctx, d); err != nil {
		t.Fatal(err)
	}
	if err := r.RecordSigned(ctx, d, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// checkRefused checks that both the check before signing and the record after it refuse a
// request, and that the records stay as they were.
func checkRefused(t *testing.T, r *Request, d *node.Dir, parts ...string) {
	t.Helper()
	before := snapshot(t, d.Path())
	for _, err := range []error{r.CheckConflicts(ctx, d), r.RecordSigned(ctx, d, time.Now())} {
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("error %v, want one with %q", err, part)
			}
		}
	}
	sameTree(t, d.Path(), before)
}

// The offline machine records what it has signed, although certificates are never filed
// there. It refuses another root key for the ID of a peer, the subnet of another peer, and a
// serial number that was used for another certificate, and the error names the date and the
// request of the earlier signature. Signing the same request again is no error. The subnets
// in a signed request are also reserved there, so that the reference's scripts do not assign
// them again.
func TestSignedIsKnown(t *testing.T) {
	agent, authority := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
	offlineCopy := copyTree(t, agent.Path())
	first := mustCollect(t, agent.Dir, peerCertFor(t, authority))
	recordSigned(t, first, offlineCopy)
	records := filepath.Join(offlineCopy.Path(), "db", "offline", signrecord.Name)
	before := string(readFileT(t, records))
	recordSigned(t, first, offlineCopy) // the answer was lost
	if got := string(readFileT(t, records)); got != before {
		t.Errorf("the same request was recorded again:\n%s", got)
	}
	recordSigned(t, mustCollect(t, agent.Dir, peerCertFor(t, authority)), offlineCopy) // the request was lost
	evil := mustCollect(t, agent.Dir, peerCertFor(t, nodetest.New(t, aa, "evil.example.com:1")))
	checkRefused(t, evil, offlineCopy, "could impersonate", first.ID[:8], time.Now().UTC().Format(time.DateOnly))

	n, items, out := fullRequest(t)
	offlineCopy, outdated := copyTree(t, n.Path()), copyTree(t, n.Path())
	first = mustCollect(t, n.Dir, items...)
	recordSigned(t, first, offlineCopy)
	for i, pool := range []string{"creditors", "debtors"} {
		p := first.peers[i]
		if got := string(readFileT(t, offlineCopy.Path(), "db", "subnets", pool, p.subnet)); got != p.bundle.Identity.ID+"\n" {
			t.Errorf("subnet %s is reserved for %q", p.subnet, got)
		}
	}
	if done, err := offlineCopy.Repair(ctx); err != nil || len(done) > 0 {
		t.Errorf("repaired: %q, %v", done, err)
	}
	checkRefused(t, mustCollect(t, outdated, peerCertFor(t, nodetest.New(t, ca, "y.example.com:1"))), offlineCopy, "subnet "+first.peers[0].subnet, first.ID[:8])

	later := mustCollect(t, n.Dir, ServerCert{CSR: serverCSR(t, n.Identity()), Days: 90, File: filepath.Join(out, "later.crt")})
	for _, serial := range []string{pki.SerialHex(first.servers[0].serial), pki.SerialHex(first.peers[1].serial)} {
		data := strings.Replace(string(later.raw), pki.SerialHex(later.servers[0].serial), serial, 1)
		again, err := ReadRequest([]byte(data), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		checkRefused(t, again, offlineCopy, "serial number "+serial, first.ID[:8])
	}
	recordSigned(t, later, offlineCopy)

	// A peer keeps its subnet, also if an older copy of the online machine's directory has given it
	// to another peer.
	n, bob := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "b.example.com:1")
	offlineCopy, older := copyTree(t, n.Path()), copyTree(t, n.Path())
	first = mustCollect(t, n.Dir, peerCertFor(t, bob))
	recordSigned(t, first, offlineCopy)
	mustCollect(t, older, peerCertFor(t, nodetest.New(t, ca, "c.example.com:1")))
	checkRefused(t, mustCollect(t, older, peerCertFor(t, bob)), offlineCopy, "keeps it for ever", first.peers[0].subnet, first.ID[:8])
}

// After a request that was changed on its way has been signed, the unchanged one is refused, with the way out:
// to forget it, and to make a new one, which can be signed and filed.
func TestChangedRequestWasSigned(t *testing.T) {
	n, items, out := fullRequest(t)
	offlineCopy := copyTree(t, n.Path())
	for _, c := range []struct {
		name   string
		item   Requested
		change func(f *requestFile)
	}{
		{"server", items[0], func(f *requestFile) { f.ServerCerts[0].CSR = string(serverCSR(t, n.Identity())) }},
		{"peer", items[2], func(f *requestFile) {
			f.PeerCerts[0].Subnet = strings.Replace(f.PeerCerts[0].Subnet, "00", "07", 1)
			f.PeerCerts[0].Bundle = readFileT(t, nodetest.New(t, da, "evil.example.com:1").Bundle(t))
		}},
	} {
		r := mustCollect(t, n.Dir, c.item)
		var f requestFile
		if err := json.Unmarshal(r.Encode(), &f); err != nil {
			t.Fatal(err)
		}
		c.change(&f)
		data, err := encode(&f)
		if err != nil {
			t.Fatal(err)
		}
		changed, err := ReadRequest(data, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		recordSigned(t, changed, offlineCopy)
		checkRefused(t, r, offlineCopy, "serial number "+r.certificates()[0].Serial, r.ID[:8], "peerlink request forget", "peerlink request new")
		if err := Forget(ctx, n.Dir, r.ID); err != nil {
			t.Fatal(err)
		}
		again := mustCollect(t, n.Dir, c.item)
		recordSigned(t, again, offlineCopy)
		mustFile(t, n.Dir, signed(t, again, n.Key))
		checkOutputs(t, n.Dir, again)
		if err := again.CheckConflicts(ctx, n.Dir); err == nil || !strings.Contains(err.Error(), "certs has a certificate with it") || !strings.Contains(err.Error(), "peerlink request new") {
			t.Errorf("%s: a serial number in certs of %s: %v", c.name, out, err)
		}
	}
}

// Records that an editor or a shell on Windows has saved are read like the original
// ones, and the next entry is added to them.
func TestRecordsFromWindows(t *testing.T) {
	agent, authority := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
	offlineCopy := copyTree(t, agent.Path())
	r := mustCollect(t, agent.Dir, peerCertFor(t, authority))
	recordSigned(t, r, offlineCopy)
	evil := mustCollect(t, agent.Dir, peerCertFor(t, nodetest.New(t, aa, "evil.example.com:1")))
	path := filepath.Join(offlineCopy.Path(), "db", "offline", signrecord.Name)
	good := string(readFileT(t, path))
	crlf := strings.ReplaceAll(good, "\n", "\r\n")
	for name, data := range map[string]string{"CRLF": crlf, "a mark": "\uFEFF" + crlf, "an empty line": crlf + "\r\n"} {
		t.Run(name, func(t *testing.T) {
			writeFileT(t, data, path)
			checkRefused(t, evil, offlineCopy, "could impersonate", r.ID[:8])
			recordSigned(t, r, offlineCopy) // it is recorded already, so nothing is added
			if got := string(readFileT(t, path)); got != data {
				t.Errorf("the record is now %q", got)
			}
			csr := ServerCert{CSR: serverCSR(t, agent.Identity()), Days: 90, File: filepath.Join(t.TempDir(), "server.crt")}
			recordSigned(t, mustCollect(t, agent.Dir, csr), offlineCopy)
			if got := string(readFileT(t, path)); !strings.HasPrefix(got, good) || strings.Count(got, "\n") != 2 || strings.Contains(got, "\r") {
				t.Errorf("with another certificate the record is %q", got)
			}
		})
	}
}

// Damaged records are never treated as missing records: the error names the file and the
// remedy, and the file is kept unchanged.
func TestDamagedRecords(t *testing.T) {
	agent := nodetest.New(t, ca, "ca.example.com:1234")
	offlineCopy := copyTree(t, agent.Path())
	r := mustCollect(t, agent.Dir, peerCertFor(t, nodetest.New(t, aa, "aa.example.com:1234")))
	recordSigned(t, r, offlineCopy)
	path := filepath.Join(offlineCopy.Path(), "db", "offline", signrecord.Name)
	good := string(readFileT(t, path))
	for name, data := range map[string]string{
		"cut":          good[:len(good)-9],
		"no line end":  good[:len(good)-1],
		"empty line":   good + "\n",
		"zeros":        good + strings.Repeat("\x00", 100),
		"changed":      strings.Replace(good, `"kind"`, `"Kind"`, 1),
		"unknown name": strings.Replace(good, `"kind"`, `"x":1,"kind"`, 1),
		"other kind":   strings.Replace(good, `peer-certificate`, `root-csr`, 1),
		"no serial":    strings.Replace(good, r.certificates()[0].Serial, "", 1),
		"not text":     "\x1b[2J",
		"empty":        "",
		"too large":    strings.Repeat(good, 8<<20/len(good)+1),
	} {
		t.Run(name, func(t *testing.T) {
			writeFileT(t, data, path)
			checkRefused(t, r, offlineCopy, path, "remove it")
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	recordSigned(t, r, offlineCopy)
}
