package offline

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/signrecord"
)

// signedHere remembers a request in the offline machine's copy of the directory.
func signedHere(t *testing.T, r *Request, d *node.Dir) {
	t.Helper()
	if err := r.CheckKnown(ctx, d); err != nil {
		t.Fatal(err)
	}
	if err := r.RecordSigned(ctx, d, time.Now()); err != nil {
		t.Fatal(err)
	}
}

// refused checks that both the check before signing and the record after it refuse a
// request, and that the records stay as they were.
func refused(t *testing.T, r *Request, d *node.Dir, parts ...string) {
	t.Helper()
	before := snapshot(t, d.Path())
	for _, err := range []error{r.CheckKnown(ctx, d), r.RecordSigned(ctx, d, time.Now())} {
		for _, part := range parts {
			if err == nil || !strings.Contains(err.Error(), part) {
				t.Errorf("error %v, want one with %q", err, part)
			}
		}
	}
	sameTree(t, d.Path(), before)
}

// The offline machine knows what it has signed, although no certificate is ever filed
// there: another root key in the name of a peer, the subnet of another peer, and a serial
// number that was used for something else are refused, and the error says when and for
// which request the other was signed. The same again is no error. The subnets that were given
// are reserved there, so that the reference scripts do not give them again.
func TestSignedIsKnown(t *testing.T) {
	agent, authority := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
	laptop := copyTree(t, agent.Path())
	first := mustCollect(t, agent.Dir, askPeer(t, authority))
	signedHere(t, first, laptop)
	records := filepath.Join(laptop.Path(), "db", "offline", signrecord.Name)
	before := string(readFileT(t, records))
	signedHere(t, first, laptop) // the answer was lost
	if got := string(readFileT(t, records)); got != before {
		t.Errorf("the same request was recorded again:\n%s", got)
	}
	signedHere(t, mustCollect(t, agent.Dir, askPeer(t, authority)), laptop) // the request was lost
	evil := mustCollect(t, agent.Dir, askPeer(t, nodetest.New(t, aa, "evil.example.com:1")))
	refused(t, evil, laptop, "break-in", first.ID[:8], time.Now().UTC().Format(time.DateOnly))

	n, asks, out := everything(t)
	laptop, forgetful := copyTree(t, n.Path()), copyTree(t, n.Path())
	first = mustCollect(t, n.Dir, asks...)
	signedHere(t, first, laptop)
	for i, pool := range []string{"creditors", "debtors"} {
		p := first.peers[i]
		if got := string(readFileT(t, laptop.Path(), "db", "subnets", pool, p.subnet)); got != p.bundle.Identity.ID+"\n" {
			t.Errorf("subnet %s is reserved for %q", p.subnet, got)
		}
	}
	if done, err := laptop.Repair(ctx); err != nil || len(done) > 0 {
		t.Errorf("repaired: %q, %v", done, err)
	}
	refused(t, mustCollect(t, forgetful, askPeer(t, nodetest.New(t, ca, "y.example.com:1"))), laptop, "subnet "+first.peers[0].subnet, first.ID[:8])

	later := mustCollect(t, n.Dir, ServerCert{CSR: serverCSR(t, n.Identity()), Days: 90, File: filepath.Join(out, "later.crt")})
	for _, serial := range []string{serialHex(first.servers[0].serial), serialHex(first.peers[1].serial)} {
		data := strings.Replace(string(later.raw), serialHex(later.servers[0].serial), serial, 1)
		again, err := ReadRequest([]byte(data), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		refused(t, again, laptop, "serial number "+serial, first.ID[:8])
	}
	signedHere(t, later, laptop)

	// A peer keeps its subnet, also if an older copy of the online machine's directory has given it
	// to another peer.
	n, bob := nodetest.New(t, aa, "aa.example.com:1234"), nodetest.New(t, ca, "b.example.com:1")
	laptop, older := copyTree(t, n.Path()), copyTree(t, n.Path())
	first = mustCollect(t, n.Dir, askPeer(t, bob))
	signedHere(t, first, laptop)
	mustCollect(t, older, askPeer(t, nodetest.New(t, ca, "c.example.com:1")))
	refused(t, mustCollect(t, older, askPeer(t, bob)), laptop, "keeps it for ever", first.peers[0].subnet, first.ID[:8])
}

// Records that were saved by an editor or a shell on Windows count like those that were
// written here, and the next entry is added to them.
func TestRecordsFromWindows(t *testing.T) {
	agent, authority := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, aa, "aa.example.com:1234")
	laptop := copyTree(t, agent.Path())
	r := mustCollect(t, agent.Dir, askPeer(t, authority))
	signedHere(t, r, laptop)
	evil := mustCollect(t, agent.Dir, askPeer(t, nodetest.New(t, aa, "evil.example.com:1")))
	path := filepath.Join(laptop.Path(), "db", "offline", signrecord.Name)
	good := string(readFileT(t, path))
	crlf := strings.ReplaceAll(good, "\n", "\r\n")
	for name, data := range map[string]string{"CRLF": crlf, "a mark": "\uFEFF" + crlf, "an empty line": crlf + "\r\n"} {
		t.Run(name, func(t *testing.T) {
			writeFileT(t, data, path)
			refused(t, evil, laptop, "break-in", r.ID[:8])
			signedHere(t, r, laptop) // it is known, so nothing is added
			if got := string(readFileT(t, path)); got != data {
				t.Errorf("the record is now %q", got)
			}
			csr := ServerCert{CSR: serverCSR(t, agent.Identity()), Days: 90, File: filepath.Join(t.TempDir(), "server.crt")}
			signedHere(t, mustCollect(t, agent.Dir, csr), laptop)
			if got := string(readFileT(t, path)); !strings.HasPrefix(got, good) || strings.Count(got, "\n") != 2 || strings.Contains(got, "\r") {
				t.Errorf("with another certificate the record is %q", got)
			}
		})
	}
}

// Damaged records are never taken for no records: the error names the file and the remedy,
// and the file stays as it is.
func TestDamagedRecords(t *testing.T) {
	agent := nodetest.New(t, ca, "ca.example.com:1234")
	laptop := copyTree(t, agent.Path())
	r := mustCollect(t, agent.Dir, askPeer(t, nodetest.New(t, aa, "aa.example.com:1234")))
	signedHere(t, r, laptop)
	path := filepath.Join(laptop.Path(), "db", "offline", signrecord.Name)
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
			refused(t, r, laptop, path, "remove it")
		})
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	signedHere(t, r, laptop)
}
