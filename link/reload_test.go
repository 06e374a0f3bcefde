package link_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/link/linktest"
	"peerlink/node"
	"peerlink/node/nodetest"
)

// exchange sends a message each way and waits for both.
func exchange(t *testing.T, a, b *linktest.Node, n int) {
	t.Helper()
	for _, way := range [][2]*linktest.Node{{a, b}, {b, a}} {
		way[0].Put(way[1], linktest.Message(t, way[0], way[1], n))
	}
	for _, n := range []*linktest.Node{a, b} {
		n.Take(1)
	}
}

// says waits until the node's log contains the text this many times.
func says(t *testing.T, n *linktest.Node, text string, times int) {
	t.Helper()
	linktest.Eventually(t, "the log", func() error {
		if got := strings.Count(n.Log.String(), text); got != times {
			return fmt.Errorf("%q is %d times in the log, want %d:\n%s", text, got, times, n.Log)
		}
		return nil
	})
}

// serialShown returns the serial number of the certificate that a node's server sends.
func serialShown(t *testing.T, who, to *linktest.Node) string {
	t.Helper()
	conn, err := dialAs(who, to)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.String()
}

// A server certificate that is replaced as Kubernetes replaces a mounted secret, by
// renaming a symbolic link, is used by the next handshake.
func TestSecretMount(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	mount := t.TempDir()
	version := func(name string) {
		if err := os.Mkdir(filepath.Join(mount, name), 0o700); err != nil {
			t.Fatal(err)
		}
		authority.WriteServerCert(t, filepath.Join(mount, name, "tls.crt"), filepath.Join(mount, name, "tls.key"), 48*time.Hour)
		if err := os.Symlink(name, filepath.Join(mount, "..data_tmp")); err != nil {
			t.Skipf("no symbolic links here: secret mounts are not tested (%v)", err)
		}
		if err := os.Rename(filepath.Join(mount, "..data_tmp"), filepath.Join(mount, "..data")); err != nil {
			t.Fatal(err)
		}
	}
	version("..2026_01")
	for _, name := range []string{"tls.crt", "tls.key"} {
		if err := os.Symlink(filepath.Join("..data", name), filepath.Join(mount, name)); err != nil {
			t.Fatal(err)
		}
	}
	authority.CertFile, authority.KeyFile = filepath.Join(mount, "tls.crt"), filepath.Join(mount, "tls.key")
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	other.Start()
	before := serialShown(t, other, authority)
	version("..2026_02")
	if err := os.RemoveAll(filepath.Join(mount, "..2026_01")); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the new certificate", func() error {
		if serialShown(t, other, authority) == before {
			return errors.New("still the old one")
		}
		return nil
	})
	if strings.Contains(authority.Log.String(), "last good server certificate") {
		t.Errorf("an incomplete change was read:\n%s", authority.Log)
	}
	exchange(t, authority, other, 1)
}

// While a new certificate is present and its key is not yet, the old pair stays in use,
// and that is logged once.
func TestMismatchedPair(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	before := serialShown(t, other, authority)
	cert, key := authority.ServerCert(t)
	replace(t, cert, authority.CertFile)
	const complaint = "the last good server certificate stays in use"
	says(t, authority, complaint, 1)
	exchange(t, authority, other, 1) // takes longer than a poll
	if serialShown(t, other, authority) != before {
		t.Error("half of the new pair is in use")
	}
	replace(t, key, authority.KeyFile)
	says(t, authority, "new server certificate", 1)
	if serialShown(t, other, authority) == before {
		t.Error("the old certificate is still shown")
	}
	says(t, authority, complaint, 1)
}

func replace(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}

// If a directory is replaced as a whole, as by a git checkout or by rsync, the new one
// is applied: links that are in both stay up, and the new state of peers applies.
func TestWholeTreeReplaced(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	exchange(t, authority, other, 1)
	path := authority.Path()
	next, last := filepath.Join(t.TempDir(), "next"), filepath.Join(t.TempDir(), "last")
	if err := os.CopyFS(next, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	replace(t, path, last)

	// A missing directory, as of a file system that is not mounted, ends no link. It may
	// be noticed at two places, if it is being read when it is renamed.
	waitForLog(t, authority, "the links stay as they are")
	linktest.Eventually(t, "the service's trouble", func() error {
		if err := authority.Service.Health(); !errors.Is(err, node.ErrNotNode) {
			return fmt.Errorf("it is %v", err)
		}
		return nil
	})
	other.Put(authority, linktest.Message(t, other, authority, 2))
	authority.Take(1)

	replace(t, next, path)
	linktest.Eventually(t, "the directory", authority.Service.Health)
	exchange(t, authority, other, 3)
	if strings.Contains(authority.Log.String(), "its link ends") || strings.Contains(authority.Log.String(), "not receiving any more") {
		t.Errorf("the link has been cut:\n%s", authority.Log)
	}

	// The next checkout contains a deactivation.
	next = filepath.Join(t.TempDir(), "next")
	if err := os.CopyFS(next, os.DirFS(path)); err != nil {
		t.Fatal(err)
	}
	mark := filepath.Join(next, "peers", other.Identity().ID, "DEACTIVATED")
	if err := os.WriteFile(mark, []byte("2026-01-01\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	replace(t, path, filepath.Join(t.TempDir(), "last"))
	replace(t, next, path)
	says(t, other, "no active link with you", 1)
	if st := authority.Service.Status().Peers[0]; st.State != "deactivated" || len(st.Connections) != 0 {
		t.Errorf("status %+v", st)
	}
}

// If a node's directory is replaced as Kubernetes replaces a mount, by renaming a
// symbolic link, the new one is applied: removing the old version has no effect, a peer
// that has moved is dialed at its new address, and a deactivation takes effect.
func TestDirectoryMount(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	id := other.Identity().ID
	mount, source := authority.Path(), filepath.Join(t.TempDir(), "source")
	replace(t, mount, source)
	if err := os.Mkdir(mount, 0o755); err != nil {
		t.Fatal(err)
	}
	current := ""
	swap := func(name string) {
		t.Helper()
		if err := os.CopyFS(filepath.Join(mount, name), os.DirFS(source)); err != nil {
			t.Fatal(err)
		}
		link := filepath.Join(mount, "..data_tmp")
		if err := os.Symlink(name, link); err != nil {
			t.Skipf("no symbolic links here: mounted directories are not tested (%v)", err)
		}
		replace(t, link, filepath.Join(mount, "..data"))
		if current != "" {
			if err := os.RemoveAll(filepath.Join(mount, current)); err != nil {
				t.Fatal(err)
			}
		}
		current = name
	}
	swap("..2026_01")
	entries, err := os.ReadDir(source)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if err := os.Symlink(filepath.Join("..data", e.Name()), filepath.Join(mount, e.Name())); err != nil {
			t.Fatal(err)
		}
	}
	authority.Start()
	other.Start()
	exchange(t, authority, other, 1)
	before := authority.Service.Status().Peers[0].Connections

	active := filepath.Join(mount, "peers", id, "ACTIVE")
	swap("..2026_02") // the same content, without what the service has written
	linktest.Eventually(t, "a read of the new version", func() error {
		_, err := os.Stat(active)
		return err
	})
	exchange(t, authority, other, 2)
	if after := authority.Service.Status().Peers[0].Connections; !slices.Equal(before, after) {
		t.Errorf("connections are %+v, were %+v", after, before)
	}

	moved := forward(t, other.Addr)
	manifest := filepath.Join(source, "peers", id, "nodeinfo", "stomp.toml")
	if err := os.WriteFile(manifest, node.EncodeStompTOML(ca, []string{moved}), 0o644); err != nil {
		t.Fatal(err)
	}
	swap("..2026_03")
	linktest.Eventually(t, "the new address", func() error {
		for _, c := range authority.Service.Status().Peers[0].Connections {
			if c.Direction == link.Sending && c.Remote == moved {
				return nil
			}
		}
		return errors.New(authority.Log.String())
	})
	exchange(t, authority, other, 3)
	if log := authority.Log.String(); strings.Contains(log, "its link ends") || strings.Contains(log, "can not be") {
		t.Errorf("the log reports a problem because of a swap:\n%s", log)
	}

	if err := os.WriteFile(filepath.Join(source, "peers", id, "DEACTIVATED"), []byte("2026-01-01\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	swap("..2026_04")
	waitForLog(t, other, "no active link with you")
	if st := authority.Service.Status().Peers[0]; st.State != "deactivated" {
		t.Errorf("status %+v", st)
	}
}

// A peer whose directory is removed is cut off, and linked again when the directory is
// back; its state is "gone" from then until then.
func TestPeerGoneAndBack(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	exchange(t, authority, other, 1)
	peers, away := filepath.Join(authority.Path(), "peers"), filepath.Join(t.TempDir(), "peers")
	replace(t, peers, away)
	says(t, authority, "peer is gone from the node's directory", 1)
	if st := authority.Service.Status().Peers[0]; st.State != "gone" {
		t.Errorf("state %q", st.State)
	}
	replace(t, away, peers)
	exchange(t, authority, other, 2)
	linktest.Eventually(t, "the state of a peer that is back", func() error {
		if st := authority.Service.Status().Peers[0]; st.State != "active" {
			return fmt.Errorf("state %q", st.State)
		}
		return nil
	})

	// Like git, which leaves files that it does not track.
	dir := filepath.Join(peers, other.Identity().ID)
	if err := os.CopyFS(away, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	files, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Name() == "ACTIVE" {
			continue
		}
		if err := os.RemoveAll(filepath.Join(dir, f.Name())); err != nil {
			t.Fatal(err)
		}
	}
	says(t, authority, "peer is gone from the node's directory", 2)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	replace(t, away, dir)
	exchange(t, authority, other, 3)
}

// When the directory of a deactivated peer is removed, its queue is not drained any
// more.
func TestDeactivatedPeerGone(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	other.Config.DrainedAfter = time.Hour // until then the drainer keeps the queue
	other.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	id := authority.Identity().ID
	if _, err := other.DeactivatePeer(context.Background(), id); err != nil {
		t.Fatal(err)
	}
	other.TakeEach(1)
	if err := os.RemoveAll(filepath.Join(other.Path(), "peers", id)); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the state gone", func() error {
		if st := other.Service.Status().Peers[0]; st.State != "gone" {
			return fmt.Errorf("state %q", st.State)
		}
		return nil
	})
	linktest.Eventually(t, "the end of draining", func() error {
		c, err := other.Store.Consume(context.Background(), linktest.QueueTo(authority))
		if err == nil {
			err = c.Close()
		}
		return err
	})
}

// A peer that is added while the services run is linked.
func TestPeerAdded(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	authority.Start()
	other.Start()
	nodetest.Peer(t, authority.Node, other.Node)
	exchange(t, authority, other, 1)
}

// A directory that is not writable, as from a ConfigMap, can be used all the same.
func TestReadOnlyDirectory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" || os.Geteuid() != 0 {
		t.Skip("needs root on Linux to mount: a read-only directory is not tested")
	}
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	nodetest.Peer(t, authority.Node, other.Node)
	path := authority.Path()
	for _, args := range [][]string{{"--bind", path, path}, {"-o", "remount,ro,bind", path}} {
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Skipf("can not mount: a read-only directory is not tested (%s)", out)
		}
		if args[0] == "--bind" {
			t.Cleanup(func() { exec.Command("umount", "-l", path).Run() })
		}
	}
	if err := os.WriteFile(filepath.Join(path, "x"), nil, 0o600); err == nil {
		t.Fatal("the directory can be written")
	}
	authority.Start()
	other.Start()
	exchange(t, authority, other, 1)
	says(t, authority, "the node's directory can not be written", 1)
}

// A peer that lists other servers is dialed there at once, though the old server still
// accepts messages, and no message is lost.
func TestNewServersAreFollowed(t *testing.T) {
	t.Parallel()
	authority, other := linktest.New(t, aa), linktest.New(t, ca)
	before, after := forward(t, authority.Addr), forward(t, authority.Addr)
	authority.WriteStompTOML(before)
	nodetest.Peer(t, authority.Node, other.Node)
	authority.Start()
	other.Start()
	exchange(t, authority, other, 1)
	other.Put(authority, numbered(t, other, authority, 100, 500)...)

	authority.WriteStompTOML(after)
	other.Sign(t, authority.Bundle(t))
	linktest.Eventually(t, "the new server", func() error {
		for _, c := range other.Service.Status().Peers[0].Connections {
			if c.Direction == link.Sending && c.Remote == after {
				return nil
			}
		}
		return fmt.Errorf("connections are %+v", other.Service.Status().Peers[0].Connections)
	})
	authority.Take(500)
	exchange(t, authority, other, 2)
	if strings.Contains(other.Log.String(), "level=WARN msg=\"no connection to the peer") {
		t.Errorf("following the new server is logged as a failure:\n%s", other.Log)
	}
}

// forward opens another address that forwards to a server.
func forward(t *testing.T, to string) string {
	t.Helper()
	return serveEach(t, "127.0.0.1:0", func(in net.Conn) {
		if out, err := net.Dial("tcp", to); err == nil {
			relay(in, out)
		}
	})
}

// The counts of a link are those of the messages sent and received on it.
func TestStatusCounts(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	other.Put(authority, numbered(t, other, authority, 0, 300)...)
	authority.Take(300)
	other.WaitDrained(authority, 0)
	from, to := other.Service.Status().Peers[0], authority.Service.Status().Peers[0]
	if from.ID != authority.Identity().ID || from.State != "active" {
		t.Errorf("the peer is %s, %s", from.ID, from.State)
	}
	if c := from.Counts; c.Sent != 300 || c.Confirmed != 300 || c.SentBytes < 300*100 || c.Received != 0 {
		t.Errorf("sender: %+v", c)
	}
	if c := to.Counts; c.Received != 300 || c.Stored != 300 || c.ReceivedBytes != from.Counts.SentBytes || c.Sent != 0 {
		t.Errorf("receiver: %+v", c)
	}
	if err := authority.Stop(); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the failure", func() error {
		st := other.Service.Status().Peers[0]
		if st.Counts.Failures == 0 || st.LastErrorAt == nil || !strings.Contains(st.LastError, authority.Addr) {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
	if _, err := other.DeactivatePeer(context.Background(), authority.Identity().ID); err != nil {
		t.Fatal(err)
	}
	linktest.Eventually(t, "the deactivation", func() error {
		if st := other.Service.Status().Peers[0]; st.State != "deactivated" || st.Deactivated == "" || len(st.Certificates) != 0 {
			return fmt.Errorf("status %+v", st)
		}
		return nil
	})
}

// Clients that are rejected before being a peer are counted by the reason.
func TestRejectedAreCounted(t *testing.T) {
	t.Parallel()
	authority, _ := linktest.Pair(t, ca)
	stranger := linktest.New(t, ca)
	for reason, try := range map[string]func() error{
		"protocol": func() error {
			c, err := net.Dial("tcp", authority.Addr)
			if err == nil {
				defer c.Close()
				_, err = io.WriteString(c, "GET / HTTP/1.1\r\n\r\n")
			}
			return err
		},
		"abandoned": func() error {
			c, err := net.Dial("tcp", authority.Addr)
			if err == nil {
				err = c.Close()
			}
			return err
		},
		"certificate": func() error { return dialBare(stranger, authority) },
	} {
		if err := try(); err != nil {
			t.Fatal(err)
		}
		linktest.Eventually(t, reason, func() error {
			if n := authority.Service.Status().Rejected[reason]; n != 1 {
				return fmt.Errorf("counted %d times: %v", n, authority.Service.Status().Rejected)
			}
			return nil
		})
	}
}

// dialBare connects with nothing but a server certificate, and waits to be rejected.
func dialBare(who, to *linktest.Node) error {
	pair, err := tls.LoadX509KeyPair(who.CertFile, who.KeyFile)
	if err != nil {
		return err
	}
	conn, err := tls.Dial("tcp", to.Addr, &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{pair}})
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.ReadAll(conn); err == nil {
		return errors.New("not turned away")
	}
	return nil
}

// A running service logs certificates that are about to expire: this node's, and the
// server certificate that a peer sends.
func TestExpiryOfWhatIsShown(t *testing.T) {
	t.Parallel()
	authority, other := linktest.Pair(t, ca)
	for _, n := range []*linktest.Node{authority, other} {
		n.WriteServerCert(t, n.CertFile, n.KeyFile, 24*time.Hour)
		if err := n.Stop(); err != nil {
			t.Fatal(err)
		}
		n.Start()
	}
	says(t, authority, `level=ERROR msg="certificate is about to end" certificate=server`, 1)
	exchange(t, authority, other, 1)
	linktest.Eventually(t, "the peer's", func() error {
		for l := range strings.Lines(authority.Log.String()) {
			if strings.Contains(l, "certificate=peer_server") && strings.Contains(l, "peer="+other.Identity().ID) {
				return nil
			}
		}
		return errors.New(authority.Log.String())
	})
	for _, c := range authority.Service.Status().Peers[0].Certificates {
		if c.Role == "peer_server" && c.DaysLeft <= 1 {
			return
		}
	}
	t.Errorf("certificates are %+v", authority.Service.Status().Peers[0].Certificates)
}

// A certificate or key that is a named pipe, to which no process may ever write, is
// refused when a service starts.
func TestCertificateFromPipe(t *testing.T) {
	n := linktest.New(t, aa)
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := exec.Command("mkfifo", pipe).Run(); err != nil {
		t.Skipf("skipped: a named pipe as certificate: %v", err)
	}
	for _, files := range [][2]string{{pipe, n.KeyFile}, {n.CertFile, pipe}} {
		if _, err := link.LoadCertificate(n.Dir, files[0], files[1]); err == nil || !strings.Contains(err.Error(), pipe+" is not a regular file") {
			t.Errorf("%q: %v", files, err)
		}
	}
}
