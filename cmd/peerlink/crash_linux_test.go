package main

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	mathrand "math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/youmark/pkcs8"
	"golang.org/x/sys/unix"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/keyshare"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// The test in this file kills the commands of the certificate authority before
// each of their system calls that change files, and checks the files that are left.

const (
	// longTests is the environment variable that, if set, makes the test kill before
	// every call instead of a sample of the calls.
	longTests = "PEERLINK_TEST_LONG"
	// killSample is the number of calls of each command in the sample.
	killSample = 3

	firstPass = "correct horse battery staple"
	newPass   = "paper clip under the third stone"
)

// site is a folder with all files that one run of a command uses: a node's
// directory, in which the command is run, and a folder with its input files.
type site struct {
	t    *testing.T
	root string
	bin  string            // path of the peerlink binary
	key  *ecdsa.PrivateKey // the node's root key
	pass string            // name of the input file with the passphrase of the root key
	// known are the problems that the directory may have after a kill: those that it
	// had before the command. A command that runs to its end must repair them.
	known []check.Finding
	// elsewhere are files outside of a copied site: the command makes them under
	// absolute paths that were recorded before the site was copied.
	elsewhere []string
	// signedTwice is set if a request was signed twice, so that the certificates have the same serial numbers.
	// A temporary file may have one that is not used.
	signedTwice bool
}

func (s *site) node(elem ...string) string {
	return filepath.Join(append([]string{s.root, "app", "node"}, elem...)...)
}

func (s *site) input(name string) string { return filepath.Join(s.root, "input", name) }

// copy makes an identical copy of the site.
func (s *site) copy(t *testing.T) *site {
	t.Helper()
	for _, path := range s.elsewhere {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	c := *s
	c.t, c.root = t, t.TempDir()
	if err := copyTree(s.root, c.root); err != nil {
		t.Fatal(err)
	}
	return &c
}

// copyTree copies a folder including file modes, which os.CopyFS does not preserve.
func copyTree(from, to string) error {
	return filepath.WalkDir(from, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil || rel == "." {
			return err
		}
		fi, err := e.Info()
		if err != nil {
			return err
		}
		copied := filepath.Join(to, rel)
		if e.IsDir() {
			return errors.Join(os.Mkdir(copied, 0o700), os.Chmod(copied, fi.Mode().Perm()))
		}
		data, err := os.ReadFile(path)
		return errors.Join(err, os.WriteFile(copied, data, 0o600), os.Chmod(copied, fi.Mode().Perm()))
	})
}

func (s *site) write(path, content string, mode fs.FileMode) {
	s.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(content), mode), os.Chmod(path, mode)); err != nil {
		s.t.Fatal(err)
	}
}

// has reports whether the node's directory contains the named file.
func (s *site) has(name string) bool {
	_, err := os.Lstat(s.node(name))
	return err == nil
}

// command returns a peerlink command that is to run in the node's directory.
func (s *site) command(args ...string) *exec.Cmd {
	c := exec.Command(s.bin, args...)
	c.Dir = s.node()
	// A process that runs for a short time needs no garbage collection.
	c.Env = append(os.Environ(), "GOGC=off", "NO_COLOR=1", "PEERLINK_DIR=")
	return c
}

func (s *site) run(args ...string) (said string, err error) {
	out, err := s.command(args...).CombinedOutput()
	return string(out), err
}

// newSite makes a site. Its node's directory contains only a root key, whose
// encryption takes little time to open.
func newSite(t *testing.T, bin string) *site {
	s := &site{t: t, root: t.TempDir(), bin: bin, pass: "pass"}
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	s.key = key.(*ecdsa.PrivateKey)
	der, err := pkcs8.MarshalPrivateKey(key, []byte(firstPass), &pkcs8.Opts{
		Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 2048, HMACHash: crypto.SHA256},
	})
	if err != nil {
		t.Fatal(err)
	}
	s.write(s.node("private", "root-ca.key"), string(pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})), 0o600)
	if err := os.Chmod(s.node("private"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write(s.input("pass"), firstPass+"\n", 0o600)
	s.write(s.input("new-pass"), newPass+"\n", 0o600)
	return s
}

// init makes the site's node, and a request for a server certificate.
func (s *site) init(kind nodetype.Type) *nodetest.Node {
	s.t.Helper()
	n := nodetest.NewWithKey(s.t, s.node(), kind, "a.example.com:1234", s.key)
	s.request()
	return n
}

// request makes input/server.csr, a request for a server certificate.
func (s *site) request() {
	s.t.Helper()
	d, err := node.Open(s.node())
	if err != nil {
		s.t.Fatal(err)
	}
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := pki.NewCSR(d.Identity(), key, pki.ServerCSR)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.input("server.csr"), string(pki.EncodeCSRPEM(der)), 0o644)
}

// bundle makes input/peer.zip, the info-bundle of another node.
func (s *site) bundle(other *nodetest.Node) {
	s.t.Helper()
	if err := other.CreateBundle(context.Background(), s.input("peer.zip"), other.Key); err != nil {
		s.t.Fatal(err)
	}
}

// take copies a file into the site's input.
func (s *site) take(path, name string) {
	s.t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.input(name), string(data), 0o600)
}

// killCase is a command that is killed.
type killCase struct {
	name string
	// prepare makes the files that exist before the command runs, and returns the
	// arguments of the command.
	prepare func(s *site) (args []string)
	// outputs are the files in the node's directory that the command makes, and
	// that it refuses to overwrite.
	outputs []string
	// keyless is set if the root key may be missing after the command was killed.
	keyless bool
	// most, if it is not 0, is the number of the command's first calls that are
	// tested. The later calls are those of another case.
	most int
	// done reports whether the command fails on its second run because the first run
	// has done everything. said is the output of the second run.
	done func(s *site, said string) bool
	// killed and end check additional conditions after the command was killed, and
	// after it has been run again.
	killed, end func(s *site)
}

func killCases() []killCase {
	const server, aaID = "a.example.com:1234", nodetest.AAID
	withPass := func(args ...string) []string { return append(args, "--passphrase-file", "../../input/pass") }
	initDone := func(_ *site, said string) bool { return strings.Contains(said, "there is a node already") }
	return []killCase{
		{
			name: "init, which makes the key too",
			prepare: func(s *site) []string {
				s.remove("private")
				s.key = nil
				return withPass("init", "accounting-authority", "--id", aaID, "--server", server, "--key-type", "p256")
			},
			most: 9,
			done: initDone,
		}, {
			name: "init of an accounting authority",
			prepare: func(s *site) []string {
				return withPass("init", "accounting-authority", "--id", aaID, "--server", server)
			},
			done: initDone,
			end:  func(s *site) { s.checkFirstFiles() },
		}, {
			name: "init of a creditors agent",
			prepare: func(s *site) []string {
				return withPass("init", "creditors-agent", "--server", server)
			},
			done: initDone,
			end:  func(s *site) { s.checkFirstFiles() },
		}, {
			name: "init as repair",
			prepare: func(s *site) []string {
				s.init(nodetype.AccountingAuthority)
				s.remove("db/index", "db/serial", "db/crlnumber", "db/index.attr", "root-ca.conf", "peers", "db/subnets/creditors")
				s.write(s.node("db/subnets/debtors", aaID+"05"), strings.Repeat("0", 32)+"\n", 0o644)
				s.write(s.node("db/subnets/debtors/SEQNUM"), "5\n", 0o644)
				s.write(s.node("db/.index.tmp-1"), "x", 0o644)
				return []string{"init"}
			},
		}, {
			name: "bundle create",
			prepare: func(s *site) []string {
				s.init(nodetype.AccountingAuthority)
				return withPass("bundle", "create", "my.zip")
			},
			outputs: []string{"my.zip"},
			end:     func(s *site) { nodetest.ReadBundle(s.t, s.node("my.zip")) },
		}, {
			name: "server-cert request",
			prepare: func(s *site) []string {
				s.init(nodetype.CreditorsAgent)
				return []string{"server-cert", "request", "server.key", "server.csr"}
			},
			outputs: []string{"server.key", "server.csr"},
			end:     func(s *site) { s.checkRequest("server.key", "server.csr") },
		}, {
			name: "server-cert sign",
			prepare: func(s *site) []string {
				s.init(nodetype.CreditorsAgent)
				return withPass("server-cert", "sign", "../../input/server.csr", "server.crt")
			},
			outputs: []string{"server.crt"},
			end:     func(s *site) { s.checkNode(check.ServerFiles{Cert: s.node("server.crt")}) },
		}, {
			name: "server-cert issue",
			prepare: func(s *site) []string {
				s.init(nodetype.DebtorsAgent)
				return withPass("server-cert", "issue", "server.key", "server.crt")
			},
			outputs: []string{"server.key", "server.crt"},
			end: func(s *site) {
				s.checkNode(check.ServerFiles{Cert: s.node("server.crt"), Key: s.node("server.key")})
			},
		}, {
			name: "server-cert renew, with a new key",
			prepare: func(s *site) []string {
				s.init(nodetype.DebtorsAgent)
				if said, err := s.run(withPass("server-cert", "issue", "server.key", "server.crt")...); err != nil {
					s.t.Fatalf("%v: %s", err, said)
				}
				return withPass("server-cert", "renew", "server.key", "server.crt", "--new-key")
			},
			end: func(s *site) {
				s.checkNode(check.ServerFiles{Cert: s.node("server.crt"), Key: s.node("server.key")})
			},
		}, {
			name: "peer sign, with one of few subnets",
			prepare: func(s *site) []string {
				s.init(nodetype.AccountingAuthority)
				s.bundle(nodetest.New(s.t, nodetype.DebtorsAgent, server))
				return withPass("peer", "sign", "../../input/peer.zip")
			},
			end: func(s *site) { s.onePeer() },
		}, {
			name: "peer sign, with one of many subnets",
			prepare: func(s *site) []string {
				s.init(nodetype.AccountingAuthority)
				s.bundle(nodetest.New(s.t, nodetype.CreditorsAgent, server))
				return withPass("peer", "sign", "../../input/peer.zip")
			},
			end: func(s *site) { s.onePeer() },
		}, {
			name: "peer sign, at an agent",
			prepare: func(s *site) []string {
				s.init(nodetype.DebtorsAgent)
				aa := nodetest.New(s.t, nodetype.AccountingAuthority, server)
				s.bundle(aa)
				return withPass("peer", "sign", "--fingerprint", pki.Fingerprint(aa.Key.Public()), "../../input/peer.zip")
			},
			end: func(s *site) { s.onePeer() },
		}, {
			name: "peer sign, again",
			prepare: func(s *site) []string {
				n, other := s.init(nodetype.AccountingAuthority), nodetest.New(s.t, nodetype.CreditorsAgent, server)
				info := func(name string) string { return filepath.Join(other.Path(), "nodeinfo", name) }
				s.write(info("logo.txt"), "old", 0o644)
				s.write(info("old/terms.txt"), "old", 0o644)
				nodetest.Peer(s.t, n, other)
				if said, err := s.run("peer", "queues", "--kustomize", other.Identity().ID, "2"); err != nil {
					s.t.Fatalf("%v: %s", err, said)
				}
				if err := os.RemoveAll(info("old")); err != nil {
					s.t.Fatal(err)
				}
				s.write(info("logo.txt"), "new", 0o644)
				s.write(info("new/terms.txt"), "new", 0o644)
				s.write(info("stomp.toml"), string(node.EncodeStompTOML(nodetype.CreditorsAgent, []string{"b.example.com:1"})), 0o644)
				s.bundle(other)
				return []string{"peer", "sign", "../../input/peer.zip"}
			},
			killed: func(s *site) {
				if p := s.onePeer(); p.StompErr != nil {
					s.t.Error(p.StompErr)
				}
			},
		}, {
			name: "peer register, at a creditors agent",
			prepare: func(s *site) []string {
				s.signed(nodetype.CreditorsAgent)
				return []string{"peer", "register", "--kustomize", "../../input/sub-ca.crt"}
			},
		}, {
			name: "peer register, at a debtors agent",
			prepare: func(s *site) []string {
				s.signed(nodetype.DebtorsAgent)
				return []string{"peer", "register", "../../input/sub-ca.crt"}
			},
		}, {
			name: "peer queues",
			prepare: func(s *site) []string {
				s.registered()
				return []string{"peer", "queues", "--kustomize", aaID, "7"}
			},
		}, {
			name: "peer deactivate",
			prepare: func(s *site) []string {
				s.registered()
				return []string{"peer", "deactivate", "--kustomize", aaID}
			},
		}, {
			name: "peer remove",
			prepare: func(s *site) []string {
				n, other := s.init(nodetype.AccountingAuthority), nodetest.New(s.t, nodetype.DebtorsAgent, server)
				n.Sign(s.t, other.Bundle(s.t))
				return []string{"peer", "remove", other.Identity().ID}
			},
			done: func(_ *site, said string) bool { return strings.Contains(said, "unknown peer") },
		}, {
			name: "peer replace, an accounting authority",
			prepare: func(s *site) []string {
				s.registered()
				aa := nodetest.New(s.t, nodetype.AccountingAuthority, server)
				s.bundle(aa)
				return withPass("peer", "replace", aaID, "../../input/peer.zip", "--fingerprint", pki.Fingerprint(aa.Key.Public()))
			},
			end:  func(s *site) { s.onePeer() },
			done: func(_ *site, said string) bool { return strings.Contains(said, "nothing to replace") },
		}, {
			name: "peer replace, an agent that keeps its subnet",
			prepare: func(s *site) []string {
				n, old := s.init(nodetype.AccountingAuthority), nodetest.New(s.t, nodetype.DebtorsAgent, server)
				nodetest.Peer(s.t, n, old)
				next := nodetest.New(s.t, nodetype.DebtorsAgent, server)
				s.bundle(next)
				return withPass("peer", "replace", old.Identity().ID, "../../input/peer.zip", "--subnet", "keep", "--fingerprint", pki.Fingerprint(next.Key.Public()))
			},
		}, {
			name: "key drill",
			prepare: func(s *site) []string {
				s.init(nodetype.CreditorsAgent)
				s.take(node.DefaultKeyFile(s.node()), "backup.key")
				return withPass("key", "drill", "--key", "../../input/backup.key")
			},
		}, {
			name: "key passphrase",
			prepare: func(s *site) []string {
				s.init(nodetype.CreditorsAgent)
				s.take(node.DefaultKeyFile(s.node()), "old.key")
				return withPass("key", "passphrase", "--new-passphrase-file", "../../input/new-pass")
			},
			// The key always opens with either the old or the new passphrase.
			killed: func(s *site) { s.openKey() },
			end:    func(s *site) { s.openKey() },
			done: func(s *site, said string) bool {
				return s.pass == "new-pass" && strings.Contains(said, "the passphrase does not open the root key")
			},
		}, {
			name: "key split",
			prepare: func(s *site) []string {
				s.init(nodetype.CreditorsAgent)
				return split(withPass)
			},
			// Each existing page is complete. The folder is not used again.
			killed: func(s *site) {
				s.pages()
				s.remove("../pages")
			},
			end: func(s *site) {
				if n := s.pages(); n != 3 {
					s.t.Errorf("there are %d of 3 pages", n)
				}
			},
		}, {
			name: "key join",
			prepare: func(s *site) []string {
				s.init(nodetype.CreditorsAgent)
				if said, err := s.run(split(withPass)...); err != nil {
					s.t.Fatalf("%v: %s", err, said)
				}
				s.remove("private")
				return withPass("key", "join", "../pages/share-3-of-3.txt", "../pages/share-1-of-3.txt")
			},
			keyless: true,
			end: func(s *site) {
				data, err := os.ReadFile(node.DefaultKeyFile(s.node()))
				if err != nil {
					s.t.Fatal(err)
				}
				key, err := pki.DecodeKey(data, func() ([]byte, error) { return []byte(firstPass), nil })
				if err != nil || !s.key.Equal(key) {
					s.t.Errorf("the key from the shares differs from the root key, or does not open: %v", err)
				}
			},
			done: func(_ *site, said string) bool { return strings.Contains(said, "exists already") },
		}, {
			name:    "request new",
			prepare: func(s *site) []string { return s.ask("request.json") },
			outputs: []string{"request.json"},
			end:     func(s *site) { s.fulfil("request.json"); s.file("../../input/answer.json") },
		}, {
			name: "fulfil",
			prepare: func(s *site) []string {
				s.asked()
				return withPass("fulfil", "--yes", "--key", "private/root-ca.key", "../../input/request.json", "answer.json")
			},
			outputs: []string{"answer.json"},
			end:     func(s *site) { s.file("answer.json") },
		}, {
			name: "request file",
			prepare: func(s *site) []string {
				s.asked()
				s.fulfil("../../input/request.json")
				return []string{"request", "file", "../../input/answer.json"}
			},
			end: func(s *site) { s.file("../../input/answer.json") },
		}, {
			name: "request file, and the answer is lost",
			prepare: func(s *site) []string {
				s.asked()
				s.fulfil("../../input/request.json")
				s.rename("answer.json", "second-answer.json")
				s.fulfil("../../input/request.json")
				return []string{"request", "file", "../../input/answer.json"}
			},
			killed: func(s *site) {
				s.signedTwice = true
				s.rename("answer.json", "first-answer.json")
				s.rename("second-answer.json", "answer.json")
			},
			done: func(s *site, said string) bool {
				if !strings.Contains(said, "another answer to the request") {
					return false
				}
				s.rename("first-answer.json", "answer.json")
				return true
			},
			end: func(s *site) { s.file("../../input/answer.json") },
		},
	}
}

// checkFirstFiles checks the server certificate and the info-bundle that an init has made beside the
// node's directory, unless the reference's init has made the node.
func (s *site) checkFirstFiles() {
	s.t.Helper()
	if _, err := os.Stat(s.input("reference.crt")); err == nil {
		return
	}
	s.checkNode(check.ServerFiles{Cert: s.node() + "-server.crt", Key: s.node() + "-server.key"})
	nodetest.ReadBundle(s.t, s.node()+"-bundle.zip")
	if s.has("db/unfinished-init") {
		s.t.Error("the init is still marked as unfinished")
	}
}

// split returns the command that makes three pages, any two of which restore the key.
func split(withPass func(...string) []string) []string {
	return withPass("key", "split", "--shares", "3", "--threshold", "2", "--text", "--out", "../pages")
}

// pages checks the existing share pages, and returns their number.
func (s *site) pages() (n int) {
	s.t.Helper()
	texts, err := filepath.Glob(s.node("../pages/*.txt"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range texts {
		data, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		if _, err := keyshare.Parse(string(data)); err != nil {
			s.t.Errorf("%s: %v", filepath.Base(path), err)
		}
	}
	return len(texts)
}

// ask makes an accounting authority, and returns the command that requests signatures
// with its root key for a server certificate, a peer certificate and an info-bundle.
func (s *site) ask(request string) []string {
	s.init(nodetype.AccountingAuthority)
	s.bundle(nodetest.New(s.t, nodetype.CreditorsAgent, "b.example.com:1234"))
	return []string{"request", "new", request, "--csr", "../../input/server.csr", "--peer", "../../input/peer.zip", "--bundle", "my.zip"}
}

// asked makes input/request.json.
func (s *site) asked() {
	s.t.Helper()
	if said, err := s.run(s.ask("../../input/request.json")...); err != nil {
		s.t.Fatalf("%v: %s", err, said)
	}
	s.elsewhere = []string{s.input("server.crt"), s.node("my.zip")}
}

// fulfil makes input/answer.json.
func (s *site) fulfil(request string) {
	s.t.Helper()
	if said, err := s.run("fulfil", "--yes", "--key", "private/root-ca.key", "--passphrase-file", "../../input/pass", request, "../../input/answer.json"); err != nil {
		s.t.Fatalf("%v: %s", err, said)
	}
}

// rename renames an input file.
func (s *site) rename(from, to string) {
	s.t.Helper()
	if err := os.Rename(s.input(from), s.input(to)); err != nil {
		s.t.Fatal(err)
	}
}

// file files an answer, which may have been filed already, and checks the resulting files.
func (s *site) file(answer string) {
	s.t.Helper()
	if said, err := s.run("request", "file", answer); err != nil {
		s.t.Fatalf("%v: %s", err, said)
	}
	s.onePeer()
	bundle := s.node("my.zip")
	if len(s.elsewhere) > 0 {
		bundle = s.elsewhere[1]
	}
	nodetest.ReadBundle(s.t, bundle)
	certs, err := filepath.Glob(s.node("certs", "*.pem"))
	if err != nil || len(certs) < 3 {
		s.t.Errorf("certificates on record: %q, %v", certs, err)
	}
}

// remove removes files or folders of the node's directory.
func (s *site) remove(names ...string) {
	s.t.Helper()
	for _, name := range names {
		if err := os.RemoveAll(s.node(name)); err != nil {
			s.t.Fatal(err)
		}
	}
}

// signed makes an agent that has signed the info-bundle of an accounting
// authority, and input/sub-ca.crt, the agent's certificate from that authority.
func (s *site) signed(kind nodetype.Type) {
	n, aa := s.init(kind), nodetest.New(s.t, nodetype.AccountingAuthority, "b.example.com:1234")
	n.Sign(s.t, aa.Bundle(s.t))
	s.take(aa.Sign(s.t, n.Bundle(s.t)).CertFile, "sub-ca.crt")
}

// registered makes a creditors agent with a peer.
func (s *site) registered() {
	nodetest.Peer(s.t, s.init(nodetype.CreditorsAgent), nodetest.New(s.t, nodetype.AccountingAuthority, "b.example.com:1234"))
}

// onePeer checks that the node has exactly one peer, and returns it.
func (s *site) onePeer() *node.Peer {
	s.t.Helper()
	d, err := node.Open(s.node())
	if err != nil {
		s.t.Fatal(err)
	}
	ids, err := d.PeerIDs()
	if err != nil || len(ids) != 1 {
		s.t.Fatalf("peers %q, error %v; want one", ids, err)
	}
	p, err := d.Peer(ids[0])
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

// openKey checks that the root key opens with the old or the new passphrase, and
// sets s.pass accordingly.
func (s *site) openKey() {
	s.t.Helper()
	data, err := os.ReadFile(node.DefaultKeyFile(s.node()))
	if err != nil {
		s.t.Fatal(err)
	}
	if old, err := os.ReadFile(s.input("old.key")); err == nil && bytes.Equal(data, old) {
		return // the file is unchanged; opening the key would take long
	}
	s.pass = "new-pass"
	key, err := pki.DecodeKey(data, func() ([]byte, error) { return []byte(newPass), nil })
	if err != nil || !s.key.Equal(key) {
		s.t.Fatalf("the file of the root key has changed, and does not open with the new passphrase: %v", err)
	}
}

// checkRequest checks that a certificate request is for the given key.
func (s *site) checkRequest(keyFile, csrFile string) {
	s.t.Helper()
	keyPEM, err1 := os.ReadFile(s.node(keyFile))
	csrPEM, err2 := os.ReadFile(s.node(csrFile))
	key, err3 := pki.DecodeKey(keyPEM, nil)
	csr, err4 := pki.ParseCSRPEM(csrPEM)
	if err := errors.Join(err1, err2, err3, err4); err != nil {
		s.t.Error(err)
	} else if !key.Public().(*ecdsa.PublicKey).Equal(csr.PublicKey) {
		s.t.Errorf("%s is not a request for the key %s", csrFile, keyFile)
	}
}

// unfinished are the rules that a directory may violate while an init is
// incomplete.
var unfinished = []check.Rule{check.RuleIncomplete, check.RuleCertMissing, check.RuleNodeType, check.RuleNodeID, check.RuleStompTOML, check.RuleSubnetOwn}

// checkNode checks that each problem of the node's directory is a known one or is due
// to an incomplete init. It returns all findings.
func (s *site) checkNode(servers ...check.ServerFiles) []check.Finding {
	s.t.Helper()
	complete := s.has("root-ca.crt")
	r, err := check.Run(context.Background(), s.node(), check.Options{Servers: servers})
	if errors.Is(err, node.ErrNotNode) && !complete {
		return nil
	}
	if err != nil {
		s.t.Fatal(err)
	}
	for _, f := range r.Findings {
		explained := slices.Contains(s.known, f) || !complete && slices.Contains(unfinished, f.Rule)
		if f.Severity == check.Problem && !explained {
			s.t.Error(f)
		}
	}
	return r.Findings
}

// checkSecrets checks all files of the site: private keys must be accessible to their
// owner only, and the root key must be encrypted.
func (s *site) checkSecrets() {
	s.t.Helper()
	var secret []byte
	if s.key != nil {
		var err error
		if secret, err = s.key.Bytes(); err != nil {
			s.t.Fatal(err)
		}
	}
	for name, data := range s.files() {
		plain := secret != nil && bytes.Contains(data, secret)
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			if !strings.HasSuffix(block.Type, "PRIVATE KEY") {
				continue
			}
			fi, err := os.Stat(filepath.Join(s.root, name))
			if err != nil {
				s.t.Fatal(err)
			}
			if fi.Mode().Perm()&0o077 != 0 {
				s.t.Errorf("%s holds a key and has mode %v", name, fi.Mode())
			}
			plain = plain || secret != nil && bytes.Contains(block.Bytes, secret)
			if block.Type != "ENCRYPTED PRIVATE KEY" && !strings.Contains(filepath.Base(name), "server.key") {
				s.t.Errorf("%s holds a key that is not encrypted", name)
			}
		}
		if plain {
			s.t.Errorf("%s holds the root key, not encrypted", name)
		}
	}
}

// checkSerials checks that no two certificates in the site which this node has signed
// have the same serial number.
func (s *site) checkSerials() {
	s.t.Helper()
	d, err := node.Open(s.node())
	if err != nil {
		return // the init is incomplete
	}
	seen := make(map[string]*x509.Certificate)
	for name, data := range s.files() {
		for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
			cert, err := x509.ParseCertificate(block.Bytes)
			if err != nil || d.Root().CheckSignature(cert.SignatureAlgorithm, cert.RawTBSCertificate, cert.Signature) != nil {
				continue
			}
			serial := cert.SerialNumber.String()
			if s.signedTwice && leftover.MatchString(name) {
				continue
			}
			if other := seen[serial]; other != nil && !other.Equal(cert) {
				s.t.Errorf("%s has the serial number of another certificate", name)
			}
			seen[serial] = cert
		}
	}
}

// files returns the contents of all files, by path relative to the site.
func (s *site) files() map[string][]byte {
	s.t.Helper()
	all := make(map[string][]byte)
	err := filepath.WalkDir(s.root, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		name, err := filepath.Rel(s.root, path)
		if err != nil {
			return err
		}
		all[name], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return all
}

// outcome returns the contents of the node's directory without those parts that may
// differ from run to run: the content of certificates and keys, counters, dates,
// certificates that were signed and not used, requests, and OpenSSL's backups of old
// files.
func (s *site) outcome() map[string]string {
	s.t.Helper()
	all := make(map[string]string)
	for path, data := range s.files() {
		name, ok := strings.CutPrefix(path, "app/node/")
		if !ok || strings.HasPrefix(name, "certs/") || strings.HasPrefix(name, "db/offline/") || filepath.Ext(name) == ".old" || leftover.MatchString(name) {
			continue
		}
		all[name] = string(data)
		switch filepath.Base(name) {
		case "serial", "index", "SEQNUM", "DEACTIVATED", "last-key-drill.txt":
			all[name] = ""
		}
		switch filepath.Ext(name) {
		case ".crt", ".csr", ".key", ".zip", ".json":
			all[name] = ""
		}
		if name == "nodeinfo/updated-at.txt" { // the node's own file; the files of peers are compared
			all[name] = ""
		}
	}
	return all
}

// again runs the command until all its work is done. If the command refuses to overwrite
// one of its output files while another output file is missing, again removes the existing
// file and runs the command again.
func (s *site) again(c killCase, args []string) {
	s.t.Helper()
	for range 1 + len(c.outputs) {
		said, err := s.run(args...)
		if err == nil || c.done != nil && c.done(s, said) {
			return
		}
		m := inTheWay.FindStringSubmatch(said)
		if m == nil || !slices.Contains(c.outputs, m[1]) {
			s.t.Fatalf("second run: %v: %s", err, said)
		}
		if !slices.ContainsFunc(c.outputs, func(name string) bool { return !s.has(name) }) {
			return // the first run has made all of them
		}
		s.remove(m[1])
	}
	s.t.Fatal("the command is not done after repeated runs")
}

var inTheWay = regexp.MustCompile(`(\S+) exists already: choose another name or remove it`)

// openssl runs a command as the reference scripts do.
func (s *site) openssl(args ...string) {
	s.t.Helper()
	c := exec.Command("openssl", append(args, "-passin", "file:"+s.input(s.pass))...)
	c.Dir = s.node()
	c.Env = append(os.Environ(), "SWPT_CA_DIR="+s.node())
	if out, err := c.CombinedOutput(); err != nil {
		s.t.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// referenceInit does what the init of the reference implementation does, in a directory
// in any state. clean is the site of an undisturbed run: its files contain the answers
// that a person would give, and the configuration that the template would produce.
func (s *site) referenceInit(clean *site) {
	s.t.Helper()
	answer := func(name string) {
		data, err := os.ReadFile(clean.node(name))
		if err != nil {
			s.t.Fatal(err)
		}
		s.write(s.node(name), string(data), 0o644)
	}
	empty := func(name string) bool {
		fi, err := os.Stat(s.node(name))
		return err != nil || fi.Size() == 0
	}
	for _, name := range []string{"certs", "db", "nodeinfo", "peers"} {
		if err := os.MkdirAll(s.node(name), 0o755); err != nil {
			s.t.Fatal(err)
		}
	}
	if !s.has("db/index") {
		s.write(s.node("db/index"), "", 0o644)
	}
	if empty("db/serial") {
		serial := make([]byte, 16)
		rand.Read(serial)
		s.write(s.node("db/serial"), hex.EncodeToString(serial)+"\n", 0o644)
	}
	if empty("db/crlnumber") {
		answer("db/crlnumber")
	}
	s.releaseSubnets()
	if empty("db/nodetype") || empty("db/nodeid") {
		for _, name := range []string{"db/nodetype", "db/nodeid", "creditors-subnet.txt", "db/subnets/debtors/SEQNUM", "db/subnets/creditors/SEQNUM"} {
			if clean.has(name) {
				answer(name)
			}
		}
	}
	for _, name := range []string{"root-ca.conf", "nodeinfo/stomp.toml"} {
		if empty(name) {
			answer(name)
		}
	}
	if empty("root-ca.crt") {
		csr := s.input("root-ca.csr")
		s.openssl("req", "-new", "-config", "root-ca.conf", "-key", "private/root-ca.key", "-reqexts", "ca_ext", "-out", csr)
		s.openssl("ca", "-batch", "-selfsign", "-config", "root-ca.conf", "-in", csr, "-out", "root-ca.crt", "-extensions", "ca_ext")
	}
}

// checkLeftovers checks that no temporary files remain in the node's directory after
// the repair that "peerlink init" does. It does not check other folders, which "peerlink
// init" leaves to their owners.
func (s *site) checkLeftovers() {
	s.t.Helper()
	d, err := node.Open(s.node())
	if err != nil {
		s.t.Fatal(err)
	}
	if _, err := d.Repair(context.Background()); err != nil {
		s.t.Fatal(err)
	}
	findings := s.checkNode()
	for _, f := range findings {
		if f.Repairable {
			s.t.Error(f)
		}
	}
	for name := range s.files() {
		name, ok := strings.CutPrefix(name, "app/node/")
		if !ok {
			continue
		}
		reported := func(f check.Finding) bool { return f.Rule == check.RuleLeftover && f.Subject == name }
		// Files that may hold keys are not removed, but reported.
		if leftover.MatchString(name) && !(strings.HasPrefix(name, "private/") && slices.ContainsFunc(findings, reported)) {
			s.t.Errorf("the temporary file %s was not removed", name)
		}
	}
}

var leftover = regexp.MustCompile(`(^|/)\.(.*\.tmp|new)-`)

// releaseSubnets does what the init of the reference implementation does with debtors
// subnets: it releases those that are reserved but not assigned to a peer.
func (s *site) releaseSubnets() {
	s.t.Helper()
	pool := s.node("db/subnets/debtors")
	reserved, err := filepath.Glob(filepath.Join(pool, "[0-9a-f]*"))
	if err != nil {
		s.t.Fatal(err)
	}
	for _, path := range reserved {
		owner, err := os.ReadFile(path)
		if err != nil {
			s.t.Fatal(err)
		}
		given, _ := os.ReadFile(s.node("peers", strings.TrimSpace(string(owner)), "subnet.txt"))
		if strings.TrimSpace(string(given)) == filepath.Base(path) {
			continue
		}
		if err := os.Remove(path); err != nil {
			s.t.Fatal(err)
		}
		s.write(filepath.Join(pool, "SEQNUM"), "-1\n", 0o644)
	}
}

// A command of the certificate authority may be killed at any time. Afterwards
// "peerlink check" finds no new problem in the directory except those of an incomplete
// init, no key is readable by other users, and the root key opens. Then the same command
// can be run again: at once, after "peerlink init", or after the reference scripts. The
// result is the same as without the kill: no serial number was used twice, no file is
// missing, and no temporary file remains.
//
// A kill itself changes no file, so it is sufficient to kill before each system call that
// would change one. Of long commands only a random sample of these calls is tested; "make
// test-long" tests all of them.
func TestKilledAnywhere(t *testing.T) {
	t.Parallel()
	bin := filepath.Join(build(t), "peerlink")
	if _, _, err := killBefore(exec.Command(bin, "version"), 0); err != nil {
		t.Skipf("no process can be traced here (%v): commands are not killed between system calls", err)
	}
	_, err := exec.LookPath("openssl")
	openssl := err == nil
	if !openssl {
		t.Log("openssl is not installed: running the reference scripts after a kill is skipped")
	}
	all := os.Getenv(longTests) != ""
	seed := mathrand.Uint64()
	t.Logf("seed %d", seed)
	for i, c := range killCases() {
		random := mathrand.New(mathrand.NewPCG(seed, uint64(i)))
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			before := newSite(t, bin)
			args := c.prepare(before)
			// The result of an undisturbed run.
			clean := before.copy(t)
			calls, _, err := killBefore(clean.command(args...), 0)
			if err != nil {
				t.Fatal(err)
			}
			clean.checkNode()
			clean.checkSecrets()
			if c.end != nil {
				c.end(clean)
			}
			if r, err := check.Run(context.Background(), before.node(), check.Options{}); err == nil {
				before.known = r.Findings
			}
			ways := []way{again, repaired}
			if openssl && before.key != nil && !c.keyless {
				ways = append(ways, referenceFirst)
			}
			points := sample(random, calls, c.most, all)
			t.Logf("killed before %d of %d system calls that change files", len(points), calls)
			random.Shuffle(len(ways), func(i, j int) { ways[i], ways[j] = ways[j], ways[i] })
			for j, n := range points {
				tried := ways[j%len(ways):][:1]
				if all {
					tried = ways
				}
				for _, way := range tried {
					t.Run(fmt.Sprintf("call %d, %s", n, way), func(t *testing.T) {
						s := before.copy(t)
						_, name, err := killBefore(s.command(args...), n)
						if err != nil {
							t.Fatal(err)
						}
						defer func() {
							if t.Failed() {
								t.Logf("killed before %s", name)
							}
						}()
						s.checkNode()
						s.checkSecrets()
						if c.killed != nil {
							c.killed(s)
						}
						s.goOn(way, clean)
						s.again(c, args)
						s.known = nil
						s.checkNode()
						s.checkSecrets()
						s.checkSerials()
						if c.end != nil {
							c.end(s)
						}
						s.checkLeftovers()
						got, want := s.outcome(), clean.outcome()
						if way == referenceFirst { // peerlink makes these only for a new node
							for _, name := range []string{".gitignore", "db/info-bundle.zip", "db/root-ca.csr", "nodeinfo/updated-at.txt"} {
								delete(got, name)
								delete(want, name)
							}
						}
						compare(t, got, want)
					})
				}
			}
		})
	}
}

// way says what is run between a killed command and its second run.
type way string

const (
	again          way = "again"
	repaired       way = "init first"
	referenceFirst way = "reference first"
)

func (s *site) goOn(w way, clean *site) {
	s.t.Helper()
	switch w {
	case repaired:
		// Without arguments, init fails if there is no node yet.
		if said, err := s.run("init"); err != nil && s.has("root-ca.crt") {
			s.t.Fatalf("init: %v: %s", err, said)
		}
	case referenceFirst:
		s.referenceInit(clean)
		s.request()
		s.openssl("ca", "-batch", "-config", "root-ca.conf", "-in", s.input("server.csr"), "-out", s.input("reference.crt"), "-days", "30", "-extensions", "server_ext")
		s.checkNode()
	}
}

// sample returns numbers from 1 to n, or to most if that is smaller than n and not 0. If
// there are more than killSample numbers and all is not set, sample divides them into
// killSample parts and returns a random number of each part; otherwise it returns all
// numbers.
func sample(random *mathrand.Rand, n, most int, all bool) []int {
	if most > 0 {
		n = min(n, most)
	}
	parts := killSample
	if n <= killSample || all {
		parts = n
	}
	var points []int
	for i := range parts {
		from, to := 1+i*n/parts, 1+(i+1)*n/parts
		points = append(points, from+random.IntN(to-from))
	}
	return points
}

// compare reports the differences of two outcomes as errors of the test.
func compare(t *testing.T, got, want map[string]string) {
	t.Helper()
	for name, content := range want {
		switch have, ok := got[name]; {
		case !ok:
			t.Errorf("%s is missing", name)
		case have != content:
			t.Errorf("%s holds %q, want %q", name, have, content)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s exists, but does not after an undisturbed run", name)
		}
	}
}

// changing are the system calls with which a Go program changes files, except
// openat.
var changing = map[uint64]string{
	unix.SYS_WRITE: "write", unix.SYS_PWRITE64: "pwrite64", unix.SYS_WRITEV: "writev", unix.SYS_COPY_FILE_RANGE: "copy_file_range",
	unix.SYS_SENDFILE: "sendfile", unix.SYS_SPLICE: "splice", unix.SYS_FALLOCATE: "fallocate",
	unix.SYS_TRUNCATE: "truncate", unix.SYS_FTRUNCATE: "ftruncate", unix.SYS_FCHMOD: "fchmod", unix.SYS_FCHMODAT: "fchmodat",
	unix.SYS_FCHOWN: "fchown", unix.SYS_FCHOWNAT: "fchownat", unix.SYS_UTIMENSAT: "utimensat", unix.SYS_MKDIRAT: "mkdirat",
	unix.SYS_RENAMEAT: "renameat", unix.SYS_RENAMEAT2: "renameat2", unix.SYS_LINKAT: "linkat", unix.SYS_SYMLINKAT: "symlinkat",
	unix.SYS_UNLINKAT: "unlinkat",
}

// killBefore runs a command, and kills it before the n-th of its system calls
// that change files. If it has fewer such calls, or n is 0, the command runs to its end
// and must succeed. killBefore returns the number of such calls that have begun, and the
// name of the last one.
//
// "strace --inject=...:when=N" is not suitable: it counts the calls of each thread and
// of each system call separately.
func killBefore(cmd *exec.Cmd, n int) (calls int, last string, err error) {
	runtime.LockOSThread() // a process is traced by one thread
	defer runtime.UnlockOSThread()
	out, err := os.CreateTemp("", "said-")
	if err != nil {
		return 0, "", err
	}
	defer os.Remove(out.Name())
	defer out.Close()
	cmd.Stdout, cmd.Stderr = out, out
	// With a process group of its own, trace waits for the threads of this process only.
	cmd.SysProcAttr = &syscall.SysProcAttr{Ptrace: true, Setpgid: true}
	if err := cmd.Start(); err != nil {
		return 0, "", err
	}
	defer cmd.Process.Release()
	status, calls, last, err := trace(cmd.Process.Pid, n)
	if err != nil {
		cmd.Process.Kill()
		cmd.Process.Wait()
		return calls, last, err
	}
	if killed := n > 0 && calls == n; killed && status.Signal() != syscall.SIGKILL || !killed && status != 0 {
		said, _ := os.ReadFile(out.Name())
		return calls, last, fmt.Errorf("ended with status %#x: %s", status, said)
	}
	return calls, last, nil
}

// trace implements killBefore: it traces a process that was just started, and that leads
// its process group, to its end.
func trace(pid, n int) (status syscall.WaitStatus, calls int, last string, err error) {
	if _, status, err = wait(pid); err != nil {
		return status, 0, "", err
	}
	const options = unix.PTRACE_O_EXITKILL | unix.PTRACE_O_TRACECLONE | unix.PTRACE_O_TRACESYSGOOD
	if err := syscall.PtraceSetOptions(pid, options); err != nil {
		return status, 0, "", err
	}
	thread, signal := pid, 0
	known := map[int]bool{pid: true}
	for {
		if err := syscall.PtraceSyscall(thread, signal); err != nil && err != syscall.ESRCH {
			return status, calls, last, err
		}
		for {
			if thread, status, err = wait(-pid); err != nil || thread == pid && !status.Stopped() {
				return status, calls, last, err
			}
			if !status.Stopped() {
				continue // the end of another thread
			}
			signal = 0
			switch stop := status.StopSignal(); {
			case stop == syscall.SIGTRAP|0x80: // a system call begins or ends
				name, err := change(thread)
				if err != nil {
					return status, calls, last, err
				}
				if name == "" {
					break
				}
				last = name
				if calls++; calls == n {
					if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
						return status, calls, last, err
					}
					continue // never resumed: this call does not happen
				}
			case stop == syscall.SIGTRAP: // the process has created a thread
			case stop == syscall.SIGSTOP && !known[thread]: // the new thread
				known[thread] = true
			default:
				signal = int(stop)
			}
			break
		}
	}
}

// wait waits for a process, or for any thread of the group -pid.
func wait(pid int) (thread int, status syscall.WaitStatus, err error) {
	for {
		thread, err = syscall.Wait4(pid, &status, syscall.WALL, nil)
		if err != syscall.EINTR {
			return thread, status, err
		}
	}
}

// change returns the name of the system call at whose entry the thread is stopped, if the
// call changes files, and otherwise an empty string.
func change(thread int) (name string, err error) {
	// The kernel's struct ptrace_syscall_info.
	var call struct {
		op     uint8
		_      [3]uint8
		_      uint32    // architecture
		_      [2]uint64 // instruction and stack pointers
		number uint64
		args   [6]uint64
		_      uint64
	}
	_, _, errno := syscall.Syscall6(syscall.SYS_PTRACE, unix.PTRACE_GET_SYSCALL_INFO, uintptr(thread),
		unsafe.Sizeof(call), uintptr(unsafe.Pointer(&call)), 0, 0)
	switch {
	case errno == syscall.ESRCH: // killed in the meantime
		return "", nil
	case errno != 0:
		return "", errno
	case call.op != unix.PTRACE_SYSCALL_INFO_ENTRY:
		return "", nil
	case call.number == unix.SYS_OPENAT && call.args[2]&(unix.O_CREAT|unix.O_TRUNC) != 0:
		return "openat", nil
	}
	return changing[call.number], nil
}
