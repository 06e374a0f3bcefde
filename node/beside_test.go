package node_test

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"peerlink/node"
	"peerlink/node/nodetest"
)

// In the tests in this file, the two implementations of hand (see reference_test.go) work on
// one directory at the same time.

// withOpenSSL makes the directory of an accounting authority for both implementations of hand.
func withOpenSSL(t *testing.T) (dir string, h reference) {
	t.Helper()
	if _, err := exec.LookPath("openssl"); err != nil {
		t.Skip("openssl is not installed: its concurrent use of a node's directory is not tested")
	}
	h.passFile = filepath.Join(t.TempDir(), "pass")
	if err := os.WriteFile(h.passFile, []byte(testPassphrase+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir = filepath.Join(t.TempDir(), "aa")
	if err := (ours{}).init(dir, aa); err != nil {
		t.Fatal(err)
	}
	return dir, h
}

// While "openssl ca" asks its user whether to sign, it has read db/serial and
// db/index, and it will write them back from memory. Certificates that peerlink
// signs meanwhile have other serial numbers, their copies are kept, and they are in
// db/index again after the next command.
func TestSigningWhileOpenSSLAsks(t *testing.T) {
	dir, h := withOpenSSL(t)
	agent := nodetest.New(t, ca, "ca.example.com:1234")
	bundle := agent.Bundle(t)

	csr := filepath.Join(t.TempDir(), "server.csr")
	conf := filepath.Join(dir, "root-ca.conf")
	if _, err := h.openssl(dir, nil, nil, "req", "-new", "-nodes", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-config", conf, "-out", csr, "-keyout", csr+".key", "-reqexts", "server_official_ext"); err != nil {
		t.Fatal(err)
	}
	ca := exec.Command("openssl", "ca", "-config", conf, "-passin", "file:"+h.passFile, "-in", csr, "-out", csr+".crt", "-days", "365", "-extensions", "server_ext")
	ca.Env = append(os.Environ(), "SWPT_CA_DIR="+dir)
	answers, err := ca.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	questions, err := ca.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := ca.Start(); err != nil {
		t.Fatal(err)
	}
	// The output of openssl up to the question.
	asked, err := bufio.NewReader(questions).ReadString('?')
	if err != nil {
		t.Fatalf("%s: %v", asked, err)
	}
	if err := (ours{}).sign(dir, bundle); err != nil {
		t.Fatal(err)
	}
	if err := (ours{}).serverCert(dir, csr+".2.key", csr+".2.crt"); err != nil {
		t.Fatal(err)
	}
	go io.Copy(io.Discard, questions)
	io.WriteString(answers, "y\ny\n")
	answers.Close()
	if err := ca.Wait(); err != nil {
		t.Fatalf("%s: %v", asked, err)
	}
	checkSigned(t, dir, 4)
}

// If both implementations sign peer and server certificates at the same time, every
// certificate has its own serial number, and every peer has its own subnet. (The
// reference implementation runs one command at a time: two concurrent "openssl ca"
// commands damage each other's files, also without peerlink.)
func TestBothHandsAtOnce(t *testing.T) {
	dir, h := withOpenSSL(t)
	const each = 4
	work := map[string][]func() error{}
	for i := range each {
		for name, hand := range map[string]hand{"ours": ours{}, "reference": h} {
			agent := nodetest.New(t, ca, "ca.example.com:1234")
			bundle := agent.Bundle(t)
			out := filepath.Join(t.TempDir(), fmt.Sprint(i))
			work[name] = append(work[name],
				func() error { return hand.sign(dir, bundle) },
				func() error { return hand.serverCert(dir, out+".key", out+".crt") })
		}
	}
	var wg sync.WaitGroup
	for name, steps := range work {
		wg.Go(func() {
			for _, do := range steps {
				if err := do(); err != nil {
					t.Errorf("%s: %v", name, err)
				}
			}
		})
	}
	wg.Wait()
	checkSigned(t, dir, 1+4*each)
}

// While OpenSSL replaces db/index, in two steps and with what it has read before, no line gets
// duplicated, and lines that only OpenSSL has written are kept.
func TestIndexReplacedMeanwhile(t *testing.T) {
	n := nodetest.New(t, aa, "aa.example.com:1234")
	file := filepath.Join(n.Path(), "db", "index")
	const theirs = "R\t300101000000Z\t260101000000Z\t0A\tunknown\t/O=Swaptacular Nodes Registry\n"
	index, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, append(index, theirs...), 0o644); err != nil {
		t.Fatal(err)
	}
	done, stopped := make(chan struct{}), make(chan error, 1)
	go func() {
		for {
			select {
			case <-done:
				stopped <- nil
				return
			default:
			}
			index, err := os.ReadFile(file)
			if err = errors.Join(err, os.WriteFile(file+".new", index, 0o644), os.Rename(file, file+".old"), os.Rename(file+".new", file)); err != nil {
				stopped <- err
				return
			}
		}
	}()
	const count = 30
	for range count {
		n.ServerCert(t)
	}
	close(done)
	if err := <-stopped; err != nil {
		t.Fatal(err)
	}
	if _, err := n.Repair(ctx); err != nil {
		t.Fatal(err)
	}
	if index, err = os.ReadFile(file); err != nil {
		t.Fatal(err)
	}
	seen := make(map[string]int)
	for line := range strings.Lines(string(index)) {
		seen[line]++
	}
	for line, n := range seen {
		if n > 1 {
			t.Errorf("%d times: %s", n, line)
		}
	}
	if len(seen) != 1+count+1 || seen[theirs] != 1 {
		t.Errorf("%d lines, want %d:\n%s", len(seen), 1+count+1, index)
	}
}

// checkSigned repairs a directory, and checks that it has records of the given number of
// certificates, and no defects.
func checkSigned(t *testing.T, dir string, want int) {
	t.Helper()
	d, err := node.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Repair(ctx); err != nil {
		t.Fatal(err)
	}
	copies, err := filepath.Glob(filepath.Join(dir, "certs", "*.pem"))
	if err != nil || len(copies) != want {
		t.Errorf("certs/ has %d certificates, want %d (%v)", len(copies), want, err)
	}
	index := []byte(read(t, dir, "db", "index"))
	for _, c := range copies {
		serial := strings.TrimSuffix(filepath.Base(c), ".pem")
		if n := bytes.Count(index, []byte("\t"+serial+"\t")); n != 1 {
			t.Errorf("db/index has %d lines for %s", n, serial)
		}
	}
	if n := bytes.Count(index, []byte("\n")); n != want {
		t.Errorf("db/index has %d lines, want %d", n, want)
	}
	noProblem(t, dir)
}
