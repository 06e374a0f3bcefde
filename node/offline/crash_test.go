package offline

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/node"
	"peerlink/node/pki"
)

var errCrash = errors.New("crash")

// crashAt returns a step that fails when it is called for the nth time, counted from
// 0.
func crashAt(n int) func() error {
	return func() error {
		if n--; n < 0 {
			return errCrash
		}
		return nil
	}
}

// copyTree makes a copy of a node's directory and opens it.
func copyTree(t *testing.T, from string) *node.Dir {
	t.Helper()
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	d, err := node.Open(to)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// If filing an answer is interrupted before any of its changes, it can be repeated,
// and the directory is then exactly as after filing without an interruption.
func TestCrashWhileFiling(t *testing.T) {
	n, items, out := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	a := signed(t, r, n.Key)
	clear := func() {
		for _, name := range []string{"server.crt", "bundle.zip"} {
			if err := os.Remove(filepath.Join(out, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
	}
	uninterrupted := copyTree(t, n.Path())
	mustFile(t, uninterrupted, a)
	want, wantOut := snapshot(t, uninterrupted.Path()), snapshot(t, out)

	crashes := 0
	for ; ; crashes++ {
		clear()
		d := copyTree(t, n.Path())
		_, err := file(ctx, d, a, time.Now(), crashAt(crashes))
		if err == nil {
			break
		}
		if !errors.Is(err, errCrash) {
			t.Fatalf("step %d: %v", crashes, err)
		}
		if _, err := node.Open(d.Path()); err != nil {
			t.Fatalf("after step %d: %v", crashes, err)
		}
		mustFile(t, d, a)
		sameTree(t, d.Path(), want)
		sameTree(t, out, wantOut)
	}
	if crashes < 10 {
		t.Errorf("interrupted at only %d steps", crashes)
	}

	// There is no step between the copy in certs/ and the line in db/index: the test
	// removes the line.
	clear()
	d := copyTree(t, n.Path())
	index := readFileT(t, d.Path(), "db", "index")
	if _, err := file(ctx, d, a, time.Now(), crashAt(1)); !errors.Is(err, errCrash) {
		t.Fatal(err)
	}
	writeFileT(t, string(index), d.Path(), "db", "index")
	mustFile(t, d, a)
	sameTree(t, d.Path(), want)
}

// If the filing of an answer was interrupted anywhere, and the answer is lost, another answer to the same request, with
// the same serial numbers and other dates and signatures, takes its place: in certs/, db/index, the peers' directories and the
// requested files. Only if the first was filed completely is the other refused.
func TestCrashBetweenTwoAnswers(t *testing.T) {
	t.Parallel()
	n, items, out := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	first, second := signed(t, r, n.Key), signedAt(t, r, n.Key, time.Now().Add(time.Hour))
	for crashes := 0; ; crashes++ {
		for _, name := range []string{"server.crt", "bundle.zip"} {
			if err := os.Remove(filepath.Join(out, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
				t.Fatal(err)
			}
		}
		d := copyTree(t, n.Path())
		if _, err := file(ctx, d, first, time.Now(), crashAt(crashes)); err == nil {
			break
		} else if !errors.Is(err, errCrash) {
			t.Fatalf("step %d: %v", crashes, err)
		}
		_, err := File(ctx, d, second, time.Now().Add(time.Hour))
		if _, completed := os.Stat(requestPath(d, r.ID, filedExt)); errors.Is(err, errNotWaiting) && completed == nil {
			continue
		}
		if err != nil {
			t.Errorf("the second answer after step %d: %v", crashes, err)
			continue
		}
		checkOutputs(t, d, r)
		certs := map[string]*x509.Certificate{filepath.Join(out, "server.crt"): second.servers[0]}
		for i, p := range r.peers {
			certs[d.IssuedFile(p.bundle.Identity.ID)] = second.peers[i]
		}
		for path, cert := range certs {
			want := string(pki.EncodeCertificatePEM(cert))
			if string(readFileT(t, path)) != want || string(readFileT(t, d.Path(), "certs", pki.SerialHex(cert.SerialNumber)+".pem")) != want {
				t.Errorf("after step %d, %s or its copy in certs/ is not that of the second answer", crashes, path)
			}
			line, err := node.IndexLine(cert)
			if index := string(readFileT(t, d.Path(), "db", "index")); err != nil || strings.Count(index, line) != 1 || strings.Count(index, pki.SerialHex(cert.SerialNumber)) != 1 {
				t.Errorf("after step %d, db/index has not exactly the line %q (%v):\n%s", crashes, line, err, index)
			}
		}
	}
}

// If replacing a peer was interrupted anywhere, another answer to the same request ends it, too.
func TestCrashWhileReplacingBetweenTwoAnswers(t *testing.T) {
	t.Parallel()
	for name, c := range replacements(t) {
		t.Run(name, func(t *testing.T) {
			r := mustCollect(t, c.n.Dir, c.item)
			first, second := signed(t, r, c.n.Key), signedAt(t, r, c.n.Key, time.Now().Add(time.Hour))
			for crashes := 0; ; crashes++ {
				d := copyTree(t, c.n.Path())
				if _, err := file(ctx, d, first, time.Now(), crashAt(crashes)); err == nil {
					return
				} else if !errors.Is(err, errCrash) {
					t.Fatalf("step %d: %v", crashes, err)
				}
				if _, err := File(ctx, d, second, time.Now().Add(time.Hour)); err != nil && !errors.Is(err, errNotWaiting) {
					t.Errorf("the second answer after step %d: %v", crashes, err)
					continue
				}
				c.check(t, d)
				issued := readFileT(t, d.IssuedFile(c.next.Identity().ID))
				if copied := readFileT(t, d.Path(), "certs", pki.SerialHex(r.peers[0].serial)+".pem"); string(issued) != string(copied) {
					t.Errorf("after step %d the peer certificate and its copy in certs/ differ", crashes)
				}
			}
		})
	}
}

// A certificate for something else with the same serial number is never replaced.
func TestOtherCertificateOnRecord(t *testing.T) {
	t.Parallel()
	n, items, _ := fullRequest(t)
	r := mustCollect(t, n.Dir, items...)
	a := signed(t, r, n.Key)
	other := string(pki.EncodeCertificatePEM(a.peers[0]))
	writeFileT(t, other, n.Path(), "certs", pki.SerialHex(r.servers[0].serial)+".pem")
	done, err := File(ctx, n.Dir, a, time.Now())
	if err == nil || done[0].State != Failed || !strings.Contains(err.Error(), "another certificate with the serial number") {
		t.Errorf("filed over another certificate: %+v, %v", done, err)
	}
	if string(readFileT(t, n.Path(), "certs", pki.SerialHex(r.servers[0].serial)+".pem")) != other {
		t.Error("the certificate on record was replaced")
	}
}

// collectUntil collects a request, and reports whether crash has interrupted that. A
// failure of crash is a panic and not an error of the step, because collect undoes its
// changes after an error.
func collectUntil(t *testing.T, d *node.Dir, items []Requested, crash func() error) (crashed bool) {
	t.Helper()
	defer func() {
		if r := recover(); r != nil && r != errCrash {
			panic(r)
		} else {
			crashed = r != nil
		}
	}()
	_, err := collect(ctx, d, items, time.Now(), func() error {
		if err := crash(); err != nil {
			panic(err)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return false
}

// If collecting a request is interrupted anywhere, no subnet is lost: in the next
// request, the peers have the same subnets.
func TestCrashWhileCollecting(t *testing.T) {
	n, items, _ := fullRequest(t)
	crashes := 0
	for ; ; crashes++ {
		d := copyTree(t, n.Path())
		if !collectUntil(t, d, items, crashAt(crashes)) {
			break
		}
		if waiting, err := WaitingRequests(d, time.Now()); err != nil || len(waiting) != 0 {
			t.Errorf("step %d: %d requests are waiting (%v)", crashes, len(waiting), err)
		}
		r := mustCollect(t, d, items...)
		if r.peers[0].subnet != "000001" || r.peers[1].subnet != d.Identity().ID+"00" {
			t.Errorf("step %d: subnets %s and %s: the first attempt's were not found", crashes, r.peers[0].subnet, r.peers[1].subnet)
		}
	}
	if crashes < 4 {
		t.Errorf("interrupted at only %d steps", crashes)
	}
}
