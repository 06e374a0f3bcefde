package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A medium is a kind of file system that does not keep file modes.
type medium struct {
	name  string
	tools []string
	mount func(m *mounter) error // at m.at
}

type mounter struct {
	t          *testing.T
	image, src string
	at         string
}

func (m *mounter) run(command string, args ...string) error {
	out, err := exec.Command(command, args...).CombinedOutput()
	if err != nil {
		m.t.Logf("%s %s: %v\n%s", command, strings.Join(args, " "), err, out)
	}
	return err
}

var media = []medium{
	{"FAT", []string{"mkfs.vfat", "fusefat"}, func(m *mounter) error {
		if err := m.run("mkfs.vfat", m.image); err != nil {
			return err
		}
		return m.run("fusefat", "-o", "rw+", m.image, m.at)
	}},
	{"NTFS", []string{"mkfs.ntfs", "ntfs-3g"}, func(m *mounter) error {
		if err := m.run("mkfs.ntfs", "-F", "-Q", m.image); err != nil {
			return err
		}
		return m.run("ntfs-3g", m.image, m.at)
	}},
	{"FUSE that refuses modes", []string{"bindfs"}, func(m *mounter) error {
		return m.run("bindfs", "--chmod-deny", "--perms=a+rX", m.src, m.at)
	}},
	{"FUSE with one mode", []string{"bindfs"}, func(m *mounter) error {
		return m.run("bindfs", "--perms=a+rX", m.src, m.at)
	}},
}

// use mounts the medium for the duration of the test, or skips the test if the medium cannot
// be mounted.
func (k medium) use(t *testing.T) (at string) {
	t.Helper()
	for _, tool := range append(k.tools, "umount") {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed: skipped", tool)
		}
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can mount: skipped")
	}
	dir := t.TempDir()
	m := &mounter{t, filepath.Join(dir, "image"), filepath.Join(dir, "source"), filepath.Join(dir, "mounted")}
	for _, folder := range []string{m.src, m.at} {
		if err := os.Mkdir(folder, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	f, err := os.Create(m.image)
	if err == nil {
		err = f.Truncate(8 << 20)
		f.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	if k.mount(m) != nil {
		t.Skip("the medium cannot be mounted here: skipped")
	}
	t.Cleanup(func() { m.run("umount", m.at) })
	return m.at
}

// On media that keep no file modes, a key can be made, changed, restored and drilled. The
// commands print a warning, and no advice that cannot be followed there. A complete node's
// directory can also be on such a medium, if other users can not replace files there; otherwise init makes
// nothing, and says with which options to mount it.
func TestMedia(t *testing.T) {
	if os.Getenv("PEERLINK_TEST_MEDIA") == "" {
		t.Skip("skipped: media without modes, which take minutes (make test-media)")
	}
	for _, k := range media {
		t.Run(k.name, func(t *testing.T) {
			at := k.use(t)
			o := newOwner(t)
			o.write("pass", []byte("correct horse battery staple"))
			o.write("pass2", []byte("another much longer passphrase"))
			key, node := filepath.Join(at, "root-ca.key"), filepath.Join(at, "node")
			do := func(args ...string) string {
				t.Helper()
				out := o.does(append([]string{"-C", node}, args...)...)
				if strings.Contains(out, "chmod") {
					t.Errorf("peerlink %v: %s", args, out)
				}
				return out
			}
			if fi, err := os.Stat(at); err != nil || fi.Mode().Perm()&0o022 != 0 {
				out, err := o.run("-C", node, "init", "creditors-agent", "--server", "ca.example.com:1234", "--key-type", "p256", "--passphrase-file", "pass")
				if made, _ := filepath.Glob(node + "*"); err == nil || !strings.Contains(out, "umask=077") || strings.Contains(out, "chmod") || len(made) > 0 {
					t.Errorf("init: %v, made %v\n%s", err, made, out)
				}
				return
			}
			out := do("init", "creditors-agent", "--server", "ca.example.com:1234", "--key-type", "p256", "--key", key, "--passphrase-file", "pass")
			if fi, err := os.Stat(key); err != nil || fi.Mode().Perm()&0o077 != 0 && !strings.Contains(out, "keeps no file modes") {
				t.Errorf("mode %v, %v: %s", fi, err, out)
			}
			do("key", "drill", "--key", key, "--passphrase-file", "pass")
			do("key", "passphrase", "--key", key, "--passphrase-file", "pass", "--new-passphrase-file", "pass2")
			do("bundle", "create", filepath.Join(at, "bundle.zip"), "--key", key, "--passphrase-file", "pass2")
			do("key", "split", "--shares", "2", "--threshold", "2", "--text", "--out", filepath.Join(at, "pages"), "--key", key, "--passphrase-file", "pass2")
			do("key", "join", "--out", filepath.Join(at, "joined"), "--passphrase-file", "pass2", filepath.Join(at, "pages/share-1-of-2.txt"), filepath.Join(at, "pages/share-2-of-2.txt"))
			out, _ = o.run("-C", node, "check", "--key", key)
			if strings.Contains(out, "chmod") {
				t.Errorf("check gives advice that cannot be followed:\n%s", out)
			}
			// Other users could read messages and the passcode: the service ends before it
			// makes any file, with advice that can be followed.
			o.does("-C", node, "server-cert", "issue", "server.key", "server.crt", "--key", key, "--passphrase-file", "pass2")
			state := filepath.Join(at, "state")
			for range 2 {
				out, err := o.run("-C", node, "serve", "--state", state, "--listen", "192.0.2.1:1", "--server-cert", "server.crt", "--server-key", "server.key")
				made, _ := os.ReadDir(state)
				if fi, statErr := os.Stat(at); statErr != nil || fi.Mode().Perm()&0o077 != 0 && (err == nil || !strings.Contains(out, "umask=077") || strings.Contains(out, "chmod") || len(made) > 0) {
					t.Errorf("serve: %v, made %v\n%s", err, made, out)
				}
				os.Mkdir(state, 0o700)
			}
			entries, err := os.ReadDir(at)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range entries {
				if strings.Contains(e.Name(), ".tmp-") {
					t.Errorf("the temporary file %s was not removed", e.Name())
				}
			}
		})
	}
}

// "key drill" succeeds with a good backup on a read-only medium, also if the node's directory
// is on that medium.
func TestReadOnlyMedium(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount: skipped")
	}
	o := newOwner(t)
	o.write("pass", []byte("correct horse battery staple"))
	disc := o.path("disc")
	if err := os.Mkdir(disc, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "none", disc).CombinedOutput(); err != nil {
		t.Skipf("it can not be mounted here: skipped\n%s", out)
	}
	t.Cleanup(func() { exec.Command("umount", disc).Run() })
	o.does("-C", "disc/node", "init", "creditors-agent", "--server", "ca.example.com:1234", "--key-type", "p256", "--key", "disc/key", "--passphrase-file", "pass")
	if err := os.Chmod(o.path("disc/key"), 0o444); err != nil { // as on a CD
		t.Fatal(err)
	}
	o.cannot("chmod 600", "-C", "disc/node", "key", "drill", "--key", "disc/key", "--passphrase-file", "pass")
	if out, err := exec.Command("mount", "-o", "remount,ro", disc).CombinedOutput(); err != nil {
		t.Skipf("it cannot be mounted read-only: skipped\n%s", out)
	}
	out := o.does("-C", "disc/node", "key", "drill", "--key", "disc/key", "--passphrase-file", "pass")
	if !strings.Contains(out, "The backup is good") || !strings.Contains(out, "could not be noted") {
		t.Error(out)
	}
	o.write("pass2", []byte("another passphrase of four words\n"))
	o.cannot("is as it was, with its old passphrase", "-C", "disc/node", "key", "passphrase", "--key", "disc/key", "--passphrase-file", "pass", "--new-passphrase-file", "pass2")
}

// If the disk is full while a passphrase is changed, a key is made or a key is split, no key
// is lost: the old key opens, and no incomplete file remains.
func TestKeyOnFullDisk(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount: skipped")
	}
	o := newOwner(t)
	o.write("pass", []byte("correct horse battery staple"))
	o.write("pass2", []byte("another much longer passphrase"))
	o.makesNode("key", "pass")
	disk := o.path("disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", "size=64k", "none", disk).CombinedOutput(); err != nil {
		t.Skipf("it can not be mounted here: skipped\n%s", out)
	}
	t.Cleanup(func() { exec.Command("umount", disk).Run() })
	o.write("disk/key", []byte(o.read("key")))
	fill, err := os.Create(filepath.Join(disk, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = fill.Write(make([]byte, 4096))
	}
	fill.Close()
	o.cannot("is as it was, with its old passphrase", "-C", "node", "key", "passphrase", "--key", "disk/key", "--passphrase-file", "pass", "--new-passphrase-file", "pass2")
	o.does("-C", "node", "key", "drill", "--key", "disk/key", "--passphrase-file", "pass")
	o.cannot("no space left", "-C", "other", "init", "creditors-agent", "--server", "ca.example.com:1234", "--key-type", "p256", "--key", "disk/new", "--passphrase-file", "pass")
	o.cannot("no space left", "-C", "node", "key", "split", "--shares", "2", "--threshold", "2", "--text", "--out", "disk/pages", "--key", "key", "--passphrase-file", "pass")
	entries, err := os.ReadDir(disk)
	if err != nil || len(entries) != 2 {
		t.Errorf("the disk has %v, %v", entries, err)
	}
}
