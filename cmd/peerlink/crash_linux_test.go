package main

import (
	"bytes"
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
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
	"time"
	"unsafe"

	"github.com/youmark/pkcs8"
	"golang.org/x/sys/unix"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/infobundle"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// The tests in this file kill the commands of the certificate authority before
// one system call after the other, and look at what that leaves.

const (
	// killAll makes the test kill before every call, instead of a sample.
	killAll = "PEERLINK_TEST_KILL_ALL"
	// killSample is how many calls of each command are in the sample.
	killSample = 20

	crashID   = "1234abcd" // of the accounting authorities here
	firstPass = "correct horse battery staple"
	newPass   = "paper clip under the third stone"
)

// site is a folder with everything that one run of a command sees: a node's
// directory, in which it is run, and a folder with its input.
type site struct {
	t    *testing.T
	root string
	bin  string            // peerlink itself
	key  *ecdsa.PrivateKey // the node's root key, if it was there before
}

func (s *site) node(elem ...string) string {
	return filepath.Join(append([]string{s.root, "app", "node"}, elem...)...)
}

func (s *site) input(name string) string { return filepath.Join(s.root, "input", name) }

// copy makes another site that is the same.
func (s *site) copy(t *testing.T) *site {
	t.Helper()
	c := *s
	c.t, c.root = t, t.TempDir()
	if err := copyTree(s.root, c.root); err != nil {
		t.Fatal(err)
	}
	return &c
}

// copyTree copies a folder, with modes, which os.CopyFS does not keep.
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
		path, copied := filepath.Join(from, rel), filepath.Join(to, rel)
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

func (s *site) exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// command is peerlink, about to run in the node's directory.
func (s *site) command(args ...string) *exec.Cmd {
	c := exec.Command(s.bin, args...)
	c.Dir = s.node()
	// What a short process allocates need not be collected.
	c.Env = append(os.Environ(), "GOGC=off", "NO_COLOR=1", "PEERLINK_DIR=")
	return c
}

func (s *site) run(args ...string) (said string, err error) {
	out, err := s.command(args...).CombinedOutput()
	return string(out), err
}

// newSite makes a site. Its node has a root key with a passphrase that opens
// fast; nothing else is there yet.
func newSite(t *testing.T, bin string) *site {
	s := &site{t: t, root: t.TempDir(), bin: bin}
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	s.key = key.(*ecdsa.PrivateKey)
	der, err := pkcs8.MarshalPrivateKey(key, []byte(firstPass), &pkcs8.Opts{
		Cipher: pkcs8.AES256CBC, KDFOpts: pkcs8.PBKDF2Opts{SaltSize: 8, IterationCount: 2048, HMACHash: 5 /* SHA-256 */},
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
	if n.Identity().ID != crashID && !kind.IDDerived() {
		s.t.Fatalf("the node's ID is %s", n.Identity().ID)
	}
	s.request(n.Identity())
	return n
}

// request makes input/server.csr, a request for a server certificate.
func (s *site) request(id pki.Identity) {
	s.t.Helper()
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		s.t.Fatal(err)
	}
	der, err := pki.NewCSR(id, key, pki.ServerCSR)
	if err != nil {
		s.t.Fatal(err)
	}
	s.write(s.input("server.csr"), string(pki.EncodeCSRPEM(der)), 0o644)
}

// bundle makes an info-bundle of another node into the site's input.
func (s *site) bundle(other *nodetest.Node, name string) {
	s.t.Helper()
	if err := other.CreateBundle(context.Background(), s.input(name), other.Key); err != nil {
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
	s.write(s.input(name), string(data), 0o644)
}

// killCase is a command that is killed.
type killCase struct {
	name   string
	before func(s *site) // makes what is there before
	args   []string
	// outputs are the files, in the node's directory, that the command makes and
	// refuses to overwrite.
	outputs []string
	// first, if not 0, is up to which call the command is killed. What comes
	// after is the same as in another case.
	first int
	// done tells, where the command is refused the second time, whether that was
	// because the first time it has done everything.
	done func(s *site, said string) bool
	// killed and end check what must hold when the command was killed, and when
	// it has been run again, beside what must hold for all of them.
	killed, end func(s *site)
}

var passFlag = []string{"--passphrase-file", "../../input/pass"}

func withPass(args ...string) []string { return append(args, passFlag...) }

func killCases() []killCase {
	const server = "a.example.com:1234"
	exists := func(_ *site, said string) bool { return strings.Contains(said, "there is a node already") }
	peer := func(s *site) *node.Peer {
		d, err := node.Open(s.node())
		if err != nil {
			s.t.Fatal(err)
		}
		ids, err := d.PeerIDs()
		if err != nil || len(ids) != 1 {
			s.t.Fatalf("peers %v, error %v; want one", ids, err)
		}
		p, err := d.Peer(ids[0])
		if err != nil {
			s.t.Fatal(err)
		}
		return p
	}
	withServer := func(s *site) {
		s.checkNode(check.Options{Servers: []check.ServerFiles{{Cert: s.node("server.crt"), Key: s.node("server.key")}}}, nil)
	}
	return []killCase{
		{
			name:   "init, with a new key",
			before: func(s *site) { s.dropKey() },
			args:   withPass("init", "creditors-agent", "--server", server, "--key-type", "p256"),
			first:  9, // to the first folder after the key is there
			done:   exists,
		}, {
			name:   "init of an accounting authority",
			before: func(s *site) { s.request(pki.Identity{Type: nodetype.AccountingAuthority, ID: crashID}) },
			args:   withPass("init", "accounting-authority", "--id", crashID, "--server", server),
			done:   exists,
		}, {
			name:   "init of a creditors agent",
			before: func(s *site) { s.request(s.derived(nodetype.CreditorsAgent)) },
			args:   withPass("init", "creditors-agent", "--server", server),
			done:   exists,
		}, {
			name: "init as repair",
			before: func(s *site) {
				s.init(nodetype.AccountingAuthority)
				for _, name := range []string{"db/index", "db/serial", "db/crlnumber", "db/index.attr", "root-ca.conf", "peers", "db/subnets/creditors"} {
					if err := os.RemoveAll(s.node(name)); err != nil {
						s.t.Fatal(err)
					}
				}
				s.write(s.node("db/subnets/debtors", crashID+"05"), strings.Repeat("0", 32)+"\n", 0o644)
				s.write(s.node("db/subnets/debtors/SEQNUM"), "5\n", 0o644)
				s.write(s.node("db/.index.tmp-1"), "x", 0o644)
			},
			args: []string{"init"},
		}, {
			name:    "bundle create",
			before:  func(s *site) { s.init(nodetype.AccountingAuthority) },
			args:    withPass("bundle", "create", "my.zip"),
			outputs: []string{"my.zip"},
			end: func(s *site) {
				data, err := os.ReadFile(s.node("my.zip"))
				if err == nil {
					_, err = infobundle.Read(data, time.Now())
				}
				if err != nil {
					s.t.Error(err)
				}
			},
		}, {
			name:    "server-cert request",
			before:  func(s *site) { s.init(nodetype.CreditorsAgent) },
			args:    []string{"server-cert", "request", "server.key", "server.csr"},
			outputs: []string{"server.key", "server.csr"},
			end:     func(s *site) { s.checkRequest(s.node("server.key"), s.node("server.csr")) },
		}, {
			name:    "server-cert sign",
			before:  func(s *site) { s.init(nodetype.CreditorsAgent) },
			args:    withPass("server-cert", "sign", "../../input/server.csr", "server.crt"),
			outputs: []string{"server.crt"},
			end: func(s *site) {
				s.checkNode(check.Options{Servers: []check.ServerFiles{{Cert: s.node("server.crt")}}}, nil)
			},
		}, {
			name:    "server-cert issue",
			before:  func(s *site) { s.init(nodetype.DebtorsAgent) },
			args:    withPass("server-cert", "issue", "server.key", "server.crt"),
			outputs: []string{"server.key", "server.crt"},
			end:     withServer,
		}, {
			name: "peer sign, at an accounting authority",
			before: func(s *site) {
				s.init(nodetype.AccountingAuthority)
				s.bundle(nodetest.New(s.t, nodetype.DebtorsAgent, server), "peer.zip")
			},
			args: withPass("peer", "sign", "../../input/peer.zip"),
			end:  func(s *site) { peer(s) },
		}, {
			name: "peer sign, at an agent",
			before: func(s *site) {
				s.init(nodetype.CreditorsAgent)
				aa := nodetest.New(s.t, nodetype.AccountingAuthority, server)
				s.bundle(aa, "peer.zip")
				s.write(s.input("fingerprint"), pki.Fingerprint(aa.Key.Public()), 0o644)
			},
			args: withPass("peer", "sign", "--fingerprint", "@fingerprint", "../../input/peer.zip"),
			end:  func(s *site) { peer(s) },
		}, {
			name: "peer sign, of a known peer",
			before: func(s *site) {
				n, other := s.init(nodetype.AccountingAuthority), nodetest.New(s.t, nodetype.CreditorsAgent, server)
				info := func(name string) string { return filepath.Join(other.Path(), "nodeinfo", name) }
				s.write(info("logo.txt"), "old", 0o644)
				s.write(info("old/terms.txt"), "old", 0o644)
				nodetest.Peer(s.t, n, other)
				if out, err := s.run("peer", "queues", "--kustomize", other.Identity().ID, "2"); err != nil {
					s.t.Fatalf("%v: %s", err, out)
				}
				if err := os.RemoveAll(info("old")); err != nil {
					s.t.Fatal(err)
				}
				s.write(info("logo.txt"), "new", 0o644)
				s.write(info("new/terms.txt"), "new", 0o644)
				s.write(info("stomp.toml"), string(node.EncodeStompTOML(nodetype.CreditorsAgent, []string{"b.example.com:1"})), 0o644)
				s.bundle(other, "peer.zip")
			},
			args: []string{"peer", "sign", "../../input/peer.zip"},
			killed: func(s *site) {
				if p := peer(s); p.StompErr != nil {
					s.t.Error(p.StompErr)
				}
			},
		}, {
			name: "peer register, at a creditors agent",
			before: func(s *site) {
				n, aa := s.init(nodetype.CreditorsAgent), nodetest.New(s.t, nodetype.AccountingAuthority, server)
				n.Sign(s.t, aa.Bundle(s.t))
				s.take(aa.Sign(s.t, n.Bundle(s.t)).CertFile, "sub-ca.crt")
			},
			args: []string{"peer", "register", "--kustomize", "../../input/sub-ca.crt"},
		}, {
			name: "peer register, at a debtors agent",
			before: func(s *site) {
				n, aa := s.init(nodetype.DebtorsAgent), nodetest.New(s.t, nodetype.AccountingAuthority, server)
				n.Sign(s.t, aa.Bundle(s.t))
				s.take(aa.Sign(s.t, n.Bundle(s.t)).CertFile, "sub-ca.crt")
			},
			args: []string{"peer", "register", "../../input/sub-ca.crt"},
		}, {
			name:   "peer queues",
			before: registered,
			args:   []string{"peer", "queues", "--kustomize", crashID, "7"},
		}, {
			name:   "peer deactivate",
			before: registered,
			args:   []string{"peer", "deactivate", "--kustomize", crashID},
		}, {
			name:   "key drill",
			before: func(s *site) { s.init(nodetype.CreditorsAgent) },
			args:   withPass("key", "drill"),
		}, {
			name:   "key passphrase",
			before: func(s *site) { s.init(nodetype.CreditorsAgent) },
			args:   withPass("key", "passphrase", "--new-passphrase-file", "../../input/new-pass"),
			done: func(s *site, said string) bool {
				_, err := s.run("key", "drill", "--passphrase-file", "../../input/new-pass")
				return err == nil && strings.Contains(said, "the passphrase does not open")
			},
			killed: func(s *site) {
				for _, pass := range []string{"pass", "new-pass"} {
					c := exec.Command(s.bin, "server-cert", "sign", "--passphrase-file", s.input(pass), s.input("server.csr"), s.input("proof.crt"))
					c.Dir = s.node()
					if c.Run() == nil {
						// The right one from now on.
						s.t.Logf("opens with %s", pass)
						s.take(s.input(pass), "pass-now")
						return
					}
				}
				s.t.Error("the root key opens neither with the old passphrase nor with the new one")
			},
		},
	}
}
