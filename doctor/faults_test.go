package doctor

import (
	"crypto/tls"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"peerlink/admin"
	"peerlink/broker/embedded"
	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
	"peerlink/stomp"
)

const day = 24 * time.Hour

// fault is a change of a fixture, and what has to be found first.
type fault struct {
	name string
	make func(f *fixture)
	want string // the check
	// Parts of its subject and detail, and of the remedy.
	detail, remedy string
	warning        bool // it is no failure
}

// ownFaults are faults of the node and of its machine.
var ownFaults = []fault{
	{"the clock is behind", func(f *fixture) { f.cfg.Now = func() time.Time { return time.Now().Add(-30 * day) } }, "clock", " is of 20", "set the clock", false},
	{"the clock is not synchronized", func(f *fixture) { f.cfg.synchronized = func() bool { return false } }, "clock", "not synchronized", "timedatectl", true},
	{"not a node's directory", func(f *fixture) { f.cfg.Dir = f.TempDir() }, "directory", "not a node's directory", "--dir", false},
	{"no db/nodeid", func(f *fixture) { f.must(os.Remove(f.file("db/nodeid"))) }, "directory", "db/nodeid", " init", false},
	{"root-ca.crt is damaged", func(f *fixture) { f.write(f.file("root-ca.crt"), "-----BEGIN") }, "directory", "root-ca.crt", "", false},
	{"root-ca.crt is another node's", func(f *fixture) { copyFile(f, filepath.Join(f.peer.Path(), "root-ca.crt"), f.file("root-ca.crt")) }, "directory", "root-ca.crt", "backup", false},
	{"the directory is open to all", func(f *fixture) { f.must(os.Chmod(f.file("db/index"), 0o666)) }, "permissions", "db/index: can be changed by anybody", "chmod -R o-w", false},
	{"the root key is not encrypted", func(f *fixture) { writeRootKey(f) }, "permissions", "not encrypted", "encrypt the key", false},
	{"no server certificate", func(f *fixture) { f.must(os.Remove(f.node.CertFile)) }, "certificate", "server.crt", "server-cert issue", false},
	{"no server key", func(f *fixture) { f.must(os.Remove(f.node.KeyFile)) }, "certificate", "server.key", "server-cert issue", false},
	{"the key of another certificate", func(f *fixture) { copyFile(f, f.peer.KeyFile, f.node.KeyFile) }, "certificate", "is not the key of", "server-cert issue", false},
	{"the certificate of another node", func(f *fixture) {
		copyFile(f, f.peer.CertFile, f.node.CertFile)
		copyFile(f, f.peer.KeyFile, f.node.KeyFile)
	}, "certificate", "can not be used by accounting-authority", "certificate of this node", false},
	{"the server certificate is no certificate", func(f *fixture) { f.write(f.node.CertFile, "x") }, "certificate", "server.crt", "server-cert issue", false},
	{"the server key has a passphrase", func(f *fixture) { encryptKey(f) }, "certificate", "must not be encrypted", "put the certificate and its key there", false},
	{"the server certificate has ended", func(f *fixture) { f.makeServerCert(f.node, time.Second); awaitEnd(f, f.node.CertFile) }, "certificate", "not valid at this time", "server-cert renew", false},
	{"the server certificate ends soon", func(f *fixture) { f.makeServerCert(f.node, 10*day) }, "certificate", "ends on ", "server-cert renew", true},
	{"the server key is revoked", func(f *fixture) { revoke(f, f.node) }, "certificate", "revoked", "renew", false},
	{"the service is not ready", func(f *fixture) {
		f.cfg.Service = &admin.Links{Problems: []string{"no disk"}}
		f.node.Start()
	}, "service", "not ready: no disk", "log of the service", false},
	{"the service does not answer", func(f *fixture) { f.cfg.ServiceErr = os.ErrDeadlineExceeded }, "service", "timeout", "log of the service", false},
	{"another program has the port", func(f *fixture) { f.serveOn(listenAt(f, f.node.Addr), says("SSH-2.0-x\r\n")) }, "listen", "it is taken: another node or another program", "--listen", false},
	{"the address is another machine's", func(f *fixture) { f.cfg.Listen = "192.0.2.1:1234" }, "listen", "192.0.2.1", "address of this machine", false},
	{"peers are told another port", func(f *fixture) { f.cfg.Listen = linktest.FreeAddress(f.T) }, "announced", "peers are told port", "--listen", false},
	{"peers are told another host", func(f *fixture) { f.node.WriteStompTOML("no-such-host.invalid:1234") }, "announced", "does not exist", "peerlink bundle create", false},
	{"no stomp.toml", func(f *fixture) { f.must(os.Remove(f.file("nodeinfo/stomp.toml"))) }, "directory", "nodeinfo/stomp.toml", "peerlink bundle create", false},
	{"stomp.toml is damaged", func(f *fixture) { f.write(f.file("nodeinfo/stomp.toml"), "servers = 7") }, "directory", "nodeinfo/stomp.toml", "peerlink bundle create", false},
	{"the state folder is open to all", func(f *fixture) { f.must(os.Chmod(f.broker.State, 0o777)) }, "state", "every user", "chmod 700", false},
	{"the state folder is a file", func(f *fixture) { f.broker.State = f.node.CertFile }, "state", "no folder", "--state", false},
	{"the disk is full", func(f *fixture) { f.broker.MinFree = 1 << 60 }, "disk", "are free", "free space", false},
	{"the disk has less than a quota", func(f *fixture) { f.broker.PeerQuota = 1 << 60 }, "disk", "less than the quota", "--peer-quota", true},
	{"the store of another node", func(f *fixture) { f.broker.Owner = func(*node.Dir) string { return "another" } }, "broker", "belongs to", "--state", false},
	{"the store is damaged", func(f *fixture) { f.write(f.broker.Store, strings.Repeat("x", 9000)) }, "broker", "no SQLite database", "docs/operations.md", false},
	{"the store is empty", func(f *fixture) { f.write(f.broker.Store, "") }, "broker", "empty", "docs/operations.md", false},
	{"the applications do not consume", func(f *fixture) {
		f.withStore(f.receive)
		f.cfg.Now = func() time.Time { return time.Now().Add(2 * time.Hour) }
	}, "messages", "accounts_in: 1 messages wait", "applications run", false},
}

// peeringFaults are faults in what the node knows of its peer, and in the messages for it.
var peeringFaults = []fault{
	{"the peer's files are damaged", func(f *fixture) { f.write(f.peerFile("root-ca.crt"), "x") }, "files", "root-ca.crt", "backup", false},
	{"the peer's stomp.toml is damaged", func(f *fixture) { f.write(f.peerFile("nodeinfo/stomp.toml"), "servers = []") }, "files", "stomp.toml", "peerlink peer sign", false},
	{"the peer has not sent its certificate", func(f *fixture) {
		f.must(os.Remove(f.peerFile("sub-ca.crt")))
		f.must(os.Remove(f.peerFile("ACTIVE")))
	}, "peering", "only signed", "peerlink peer register", false},
	{"the link is suspended here", func(f *fixture) { f.must(f.node.SuspendPeer(f.Context(), f.peerID(), "x")) }, "peering", "suspended here", "peer resume", false},
	{"the queue is lost", func(f *fixture) {
		f.must(os.Remove(f.broker.Store))
		_ = os.Remove(f.broker.Store + "-last")
		s, err := embedded.Open(f.broker.Store, embedded.Options{Owner: ownerOf(f.node.Dir), Service: true, Logger: f.node.Log.Logger()})
		f.must(err)
		f.must(s.Close())
	}, "objects", "routed to no queue", "start the service", false},
	{"the peer's quota is full", func(f *fixture) { f.withStore(f.receive); f.broker.PeerQuota = 10_000 }, "quota", "no more are accepted", "consume", false},
	{"a message is set aside", func(f *fixture) { f.withStore(func(s *embedded.Store) { f.queue(s); f.setAside(s) }) }, "messages", "1 are set aside", "peerlink queue show", false},
	{"messages wait, and no service runs", func(f *fixture) {
		f.withStore(f.queue)
		f.cfg.Now = func() time.Time { return time.Now().Add(30 * time.Minute) }
	}, "messages", "no service runs", "peerlink serve", false},
	{"the peer can not connect", func(f *fixture) {
		f.node.Start()
		bad := link.LinkState{Verdict: link.VerdictQuotaFull, Reason: "its quota is full", Remedy: "consume"}
		l := &admin.Links{Ready: true}
		l.Peers = []link.PeerStatus{{ID: f.peerID(), In: bad}}
		f.cfg.Service = l
	}, "receiving", "its quota is full", "consume", false},
}

// networkFaults are faults on the way to the peer, and at the peer.
var networkFaults = []fault{
	{"the peer's name does not exist", func(f *fixture) { f.peerServers("no-such-host.invalid:1234") }, "dns", "no-such-host.invalid", "present address", false},
	{"nothing listens", func(f *fixture) { f.must(f.peer.Stop()) }, "tcp", "TCP connection refused", "firewall", false},
	{"one of two servers is down", func(f *fixture) { f.peerServers(f.peer.Addr, linktest.FreeAddress(f.T)) }, "tcp", "TCP connection refused", "firewall", false},
	{"another program listens", func(f *fixture) { f.must(f.peer.Stop()); f.serve(says("SSH-2.0-x\r\n")) }, "tls", "another program", "which program", false},
	{"a silent program listens", func(f *fixture) { f.must(f.peer.Stop()); f.serve(says("")) }, "tls", "no TLS handshake", "which program", false},
	{"only TLS 1.2", func(f *fixture) {
		f.must(f.peer.Stop())
		f.serveTLS(&tls.Config{MaxVersion: tls.VersionTLS12}, says(""))
	}, "tls", "protocol version", "TLS 1.3", false},
	{"large packets are lost", func(f *fixture) { f.peerServers(withoutLargePackets(f)) }, "tls", "lost on the way", "MTU", true},
	{"another node answers", func(f *fixture) {
		other := linktest.New(f.T, nodetype.CreditorsAgent)
		other.Start()
		f.peerServers(other.Addr)
	}, "subject", "expected that of creditors-agent", "another node answers", false},
	{"the peer's certificate has ended", func(f *fixture) {
		f.makeServerCert(f.node, 700*day)
		f.cfg.Now = func() time.Time { return time.Now().Add(400 * day) }
	}, "chain", "refused by this node", "the peer's owner", false},
	{"the peer's key is revoked", func(f *fixture) {
		f.must(f.peer.Stop())
		revoke(f, f.peer)
		f.node.Sign(f.T, f.peer.Bundle(f.T))
		f.serveTLS(&tls.Config{}, says(""))
	}, "chain", "revoked", "which address answers", false},
	{"the peer's clock is behind", func(f *fixture) {
		f.must(f.peer.Stop())
		f.peer.Config.Now = func() time.Time { return time.Now().Add(-2 * day) }
		f.peer.Start()
	}, "accepted", "refused by the peer", "ask the owner", false},
	{"no STOMP", func(f *fixture) {
		f.must(f.peer.Stop())
		f.serveTLS(&tls.Config{}, answers("HTTP/1.1 400 Bad Request\r\n\r\n"))
	}, "connect", "", "", false},
	{"STOMP is refused", func(f *fixture) {
		f.must(f.peer.Stop())
		f.serveTLS(&tls.Config{}, answers("ERROR\nmessage:bad login\n\n\x00"))
	}, "connect", "bad login", "ask the owner", false},
	{"the peer has not registered this node", func(f *fixture) {
		f.must(os.Remove(filepath.Join(f.peer.Path(), "peers", f.node.Identity().ID, "sub-ca.crt")))
		restart(f, f.peer)
	}, "registered", "has not registered", "peerlink peer register", false},
	{"the peer does not know this node", func(f *fixture) {
		f.must(os.RemoveAll(filepath.Join(f.peer.Path(), "peers", f.node.Identity().ID)))
		restart(f, f.peer)
	}, "registered", "no peer with the ID", "peerlink peer list", false},
	{"the peer has suspended the link", func(f *fixture) {
		f.must(f.peer.SuspendPeer(f.Context(), f.node.Identity().ID, "new disks"))
		restart(f, f.peer)
	}, "registered", "new disks", "wait", false},
	{"the reference refuses late", func(f *fixture) {
		f.must(f.peer.Stop())
		f.serveTLS(&tls.Config{}, stompServer(stomp.ServerConfig{Destination: f.peer.Identity().Type.Destination()}, "Unknown peer serial number."))
	}, "registered", "most likely", "peerlink peer register", false},
	{"no heart-beats", func(f *fixture) {
		f.must(f.peer.Stop())
		f.serveTLS(&tls.Config{}, stompServer(stomp.ServerConfig{Destination: "x", HeartBeat: stomp.HeartBeat{Send: -1, Receive: -1}}, ""))
	}, "heart-beat", "the peer sends none", "turn on", true},
	{"another destination", func(f *fixture) {
		f.write(f.peerFile("nodeinfo/stomp.toml"), "servers = [\""+f.peer.Addr+"\"]\nhost = \"/\"\ndestination = \"smp\"\n")
	}, "destination", `"smp"`, "info-bundle", true},
}

// Each fault is found, as the first, with its remedy, and only it makes the examination fail.
func TestFaults(t *testing.T) {
	t.Parallel()
	all := append(append(append([]fault{}, ownFaults...), peeringFaults...), networkFaults...)
	if len(all) < 30 {
		t.Errorf("only %d faults", len(all))
	}
	for _, c := range all {
		t.Run(strings.ReplaceAll(c.name, " ", "-"), func(t *testing.T) {
			t.Parallel()
			f := newFixture(t)
			f.peer.Start()
			c.make(f)
			checkFirst(f, c)
		})
	}
}

func checkFirst(f *fixture, c fault) {
	f.Helper()
	r, err := Run(f.Context(), f.cfg)
	f.must(err)
	first := r.First()
	checkDocumented(f.T, c.want)
	if first == nil {
		f.Fatalf("nothing is found: %+v", r.Checks)
	}
	text := first.Subject + ": " + first.Detail
	if first.Name != c.want || !strings.Contains(text, c.detail) || !strings.Contains(first.Remedy, c.remedy) || first.Remedy == "" || r.OK != c.warning || first.OK != c.warning {
		f.Errorf("%+v, expected %q with %q and %q", *first, c.want, c.detail, c.remedy)
	}
	for _, other := range r.Checks {
		if other.State == Failed && other != *first && other.Name == first.Name && other.Peer != first.Peer {
			f.Errorf("it is found elsewhere, too: %+v", other)
		}
	}
}

func copyFile(f *fixture, from, to string) {
	data, err := os.ReadFile(from)
	f.must(err)
	f.write(to, string(data))
}

func listenAt(f *fixture, addr string) net.Listener {
	l, err := net.Listen("tcp", addr)
	f.must(err)
	return l
}

// restart starts the service of a node again, so that what its directory says is in force.
func restart(f *fixture, n *linktest.Node) {
	f.must(n.Stop())
	n.Start()
}

func writeRootKey(f *fixture) {
	text, err := pki.EncodeKey(f.node.Key)
	f.must(err)
	f.must(os.MkdirAll(f.file("private"), 0o700))
	f.write(f.file("private/root-ca.key"), string(text))
}

func encryptKey(f *fixture) {
	key, err := pki.GenerateKey(pki.P256)
	f.must(err)
	text, err := pki.EncodeEncryptedKey(key, []byte("correct horse"))
	f.must(err)
	f.write(f.node.KeyFile, string(text))
}

// revoke revokes the server key of a node.
func revoke(f *fixture, n *linktest.Node) {
	cert, err := readCertificate(n.CertFile)
	f.must(err)
	_, err = n.RevokeServerKey(f.Context(), pki.Fingerprint(cert.PublicKey))
	f.must(err)
}

// awaitEnd waits until a certificate has ended.
func awaitEnd(f *fixture, file string) {
	cert, err := readCertificate(file)
	f.must(err)
	linktest.Eventually(f.T, "the end of the certificate", func() error {
		if time.Now().After(cert.NotAfter) {
			return nil
		}
		return os.ErrDeadlineExceeded
	})
}

// withoutLargePackets returns an address from which connections are forwarded to the peer, unless they begin with a
// large packet.
func withoutLargePackets(f *fixture) string {
	addr := linktest.FreeAddress(f.T)
	f.serveOn(listenAt(f, addr), func(from net.Conn) {
		defer from.Close()
		first := make([]byte, 4096)
		n, err := from.Read(first)
		if err != nil || n > 1000 {
			io.Copy(io.Discard, from)
			return
		}
		to, err := net.Dial("tcp", f.peer.Addr)
		if err != nil {
			return
		}
		defer to.Close()
		to.Write(first[:n])
		go func() {
			io.Copy(to, from)
			to.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(from, to)
	})
	return addr
}
