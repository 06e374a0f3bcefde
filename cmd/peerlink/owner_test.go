package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"

	"peerlink/node/pki"
)

// An owner is the owner of a root key, who uses the peerlink binary.
type owner struct {
	t    *testing.T
	bin  string
	home string // the working directory of the commands; file names are relative to it
}

func newOwner(t *testing.T) *owner {
	return &owner{t, filepath.Join(build(t), "peerlink"+exe()), t.TempDir()}
}

func (o *owner) path(name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(o.home, name)
}

func (o *owner) write(name string, data []byte) {
	o.t.Helper()
	if err := os.WriteFile(o.path(name), data, 0o600); err != nil {
		o.t.Fatal(err)
	}
}

func (o *owner) read(name string) string {
	o.t.Helper()
	data, err := os.ReadFile(o.path(name))
	if err != nil {
		o.t.Fatal(err)
	}
	return string(data)
}

// run runs peerlink in o.home, and returns its output.
func (o *owner) run(args ...string) (string, error) {
	c := exec.Command(o.bin, args...)
	c.Dir = o.home
	out, err := c.CombinedOutput()
	return string(out), err
}

// does runs a command that must succeed, and returns its output.
func (o *owner) does(args ...string) string {
	o.t.Helper()
	out, err := o.run(args...)
	if err != nil {
		o.t.Fatalf("peerlink %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// cannot runs a command that must fail with an output that contains why.
func (o *owner) cannot(why string, args ...string) {
	o.t.Helper()
	if out, err := o.run(args...); err == nil || !strings.Contains(out, why) {
		o.t.Errorf("peerlink %s: %v\n%s\nwant an error with %q", strings.Join(args, " "), err, out, why)
	}
}

func (o *owner) makesNode(key, passFile string) {
	o.t.Helper()
	o.does("-C", "node", "init", "creditors-agent", "--server", "ca.example.com:1234", "--key-type", "p256", "--key", key, "--passphrase-file", passFile)
}

// powershell returns the text encoded as by the redirection ">" of PowerShell 5.
func powershell(text string) []byte {
	data := []byte{0xff, 0xfe}
	for _, u := range utf16.Encode([]rune(text + "\r\n")) {
		data = append(data, byte(u), byte(u>>8))
	}
	return data
}

// If a passphrase is set from a file, the key opens with the text that a person who reads the
// file would type, whatever program has written the file. If the content of the file cannot be
// typed, no passphrase is set.
func TestPassphraseFiles(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	const pass, second = "correct hörse battery", "another much longer passphrase"
	o.write("typed", []byte(pass))
	o.write("typed2", []byte(second))
	o.write("utf16", powershell(pass))
	o.write("mark", []byte("\ufeff"+second+"\r\n"))
	for name, text := range map[string]string{
		"nul": "correct\x00horse", "control": "correct\x1b[Dhorse", "latin1": "correct h\xf6rse", "invisible": "correct\u200bhorse",
	} {
		o.write(name, []byte(text+"\n"))
		o.cannot("passphrase", "-C", "node", "init", "creditors-agent", "--server", "ca.example.com:1234", "--passphrase-file", name)
		if _, err := os.Lstat(o.path("node")); err == nil {
			t.Errorf("passphrase file %s: a node was made", name)
		}
	}

	o.makesNode("key", "utf16")
	for _, file := range []string{"typed", "utf16"} {
		o.does("-C", "node", "key", "drill", "--key", "key", "--passphrase-file", file)
	}
	if out := o.does("-C", "node", "key", "split", "--shares", "2", "--threshold", "2", "--text", "--out", "pages", "--key", "key", "--passphrase-file", "utf16"); strings.Contains(out, "Warning") {
		t.Error(out)
	}
	shares := []string{"pages/share-1-of-2.txt", "pages/share-2-of-2.txt"}
	o.does(append([]string{"-C", "node", "key", "join", "--out", "joined", "--passphrase-file", "utf16"}, shares...)...)
	o.does("-C", "node", "key", "drill", "--key", "joined", "--passphrase-file", "typed")

	out := o.does("-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "utf16", "--new-passphrase-file", "mark")
	if !strings.Contains(out, "as it would be typed") {
		t.Errorf("the output does not mention the byte order mark:\n%s", out)
	}
	o.does("-C", "node", "key", "drill", "--key", "key", "--passphrase-file", "typed2")
	o.cannot("control character", "-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "typed2", "--new-passphrase-file", "control")
	o.does("-C", "node", "key", "drill", "--key", "key", "--passphrase-file", "typed2")

	// Another keyboard sends ö as two characters.
	o.write("decomposed", []byte("correct ho\u0308rse battery"))
	o.does("-C", "node", "key", "drill", "--key", "joined", "--passphrase-file", "decomposed")
	if out := o.does("-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "typed2", "--new-passphrase-file", "typed"); !strings.Contains(out, "accents") {
		t.Errorf("the output does not mention the two forms of ö:\n%s", out)
	}
}

// A key that an earlier version has encrypted with a passphrase file including its byte order
// mark, or with its UTF-16 encoding, still opens with that file. "key drill" then advises to
// use "key passphrase", and "key split" fails, since the shares could not be opened by typing.
// After "key passphrase" with the same file, the key opens with the typed passphrase.
func TestUntypeableKeys(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("typed", []byte("correct horse"))
	o.makesNode("typed.key", "typed")
	key, err := pki.DecodeKey([]byte(o.read("typed.key")), func() ([]byte, error) { return []byte("correct horse"), nil })
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{"mark": []byte("\ufeffcorrect horse\r\n"), "utf16": powershell("correct horse")}
	for name, file := range files {
		o.write(name, file)
		old, _, _ := bytes.Cut(file, []byte("\n"))
		pem, err := pki.EncodeEncryptedKey(key, bytes.TrimSuffix(old, []byte("\r")))
		if err != nil {
			t.Fatal(err)
		}
		o.write("old.key", pem)
		o.cannot("does not open", "-C", "node", "key", "drill", "--key", "old.key", "--passphrase-file", "typed")
		if out := o.does("-C", "node", "key", "drill", "--key", "old.key", "--passphrase-file", name); !strings.Contains(out, "key passphrase") {
			t.Errorf("%s: no advice to use key passphrase:\n%s", name, out)
		}
		o.cannot("the passphrase could not be typed when the shares are opened", "-C", "node", "key", "split", "--shares", "2", "--threshold", "2", "--key", "old.key", "--passphrase-file", name)
		o.does("-C", "node", "key", "passphrase", "--key", "old.key", "--passphrase-file", name, "--new-passphrase-file", name)
		o.does("-C", "node", "key", "drill", "--key", "old.key", "--passphrase-file", "typed")
	}
}

// A passphrase that is set in any Unicode form opens the key and its shares in every form that
// another keyboard may send. A key that another program has encrypted with a text in neither
// normal form opens with that text; the commands print a warning, and after the same
// passphrase has been set again, the key opens with every form.
func TestPassphraseOfAnotherKeyboard(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	forms := []string{"windows", "nfc", "nfd"}
	o.write("windows", []byte("ti\u00ea\u0301ng Vi\u00ea\u0323t 42"))
	o.write("nfc", []byte("ti\u1ebfng Vi\u1ec7t 42"))
	o.write("nfd", []byte("tie\u0302\u0301ng Vie\u0323\u0302t 42"))
	o.makesNode("key", "windows")
	opens := func(key string) {
		t.Helper()
		for _, form := range forms {
			if out := o.does("-C", "node", "key", "drill", "--key", key, "--passphrase-file", form); strings.Contains(out, "Warning") {
				t.Errorf("%s, %s: %s", key, form, out)
			}
		}
	}
	opens("key")
	key, err := pki.DecodeKey([]byte(o.read("key")), func() ([]byte, error) { return []byte(o.read("nfc")), nil })
	if err != nil {
		t.Fatalf("the key is not encrypted with the form NFC: %v", err)
	}

	old, err := pki.EncodeEncryptedKey(key, []byte(o.read("windows")))
	if err != nil {
		t.Fatal(err)
	}
	o.write("old.key", old)
	if out := o.does("-C", "node", "key", "split", "--shares", "2", "--threshold", "2", "--text", "--out", "pages", "--key", "old.key", "--passphrase-file", "windows"); !strings.Contains(out, "Set it again") {
		t.Errorf("no warning about a passphrase that other keyboards do not send:\n%s", out)
	}
	o.does("-C", "node", "key", "join", "--out", "joined", "--passphrase-file", "nfd", "pages/share-1-of-2.txt", "pages/share-2-of-2.txt")
	opens("joined")
	if out := o.does("-C", "node", "key", "passphrase", "--key", "old.key", "--passphrase-file", "windows", "--new-passphrase-file", "windows"); !strings.Contains(out, "need the form NFC") {
		t.Errorf("the output does not mention the form that OpenSSL needs:\n%s", out)
	}
	opens("old.key")
}

// If the key file is given as a symbolic link, the target of the link is changed. A key file
// with several hard links is not changed, since the old passphrase would still open the key
// under its other names.
func TestPassphraseThroughLink(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse"))
	o.write("pass2", []byte("another much longer passphrase"))
	if err := os.Mkdir(o.path("stick"), 0o700); err != nil {
		t.Fatal(err)
	}
	o.makesNode("stick/root-ca.key", "pass")
	link := o.path("node/private/root-ca.key")
	if err := os.Mkdir(filepath.Dir(link), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(o.path("stick/root-ca.key"), link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	o.does("-C", "node", "key", "passphrase", "--passphrase-file", "pass", "--new-passphrase-file", "pass2")
	for _, folder := range []string{"stick", "node/private"} {
		entries, err := os.ReadDir(o.path(folder))
		if err != nil || len(entries) != 1 {
			t.Errorf("%s has %v, %v", folder, entries, err)
		}
	}
	if fi, err := os.Lstat(link); err != nil || fi.Mode()&os.ModeSymlink == 0 {
		t.Errorf("the link is %v, %v", fi, err)
	}
	o.does("-C", "node", "key", "drill", "--key", "stick/root-ca.key", "--passphrase-file", "pass2")
	o.cannot("does not open", "-C", "node", "key", "drill", "--key", "stick/root-ca.key", "--passphrase-file", "pass")

	if err := os.Link(o.path("stick/root-ca.key"), o.path("stick/backup.key")); err != nil {
		t.Skipf("no hard links here: %v", err)
	}
	if exe() == "" {
		o.cannot("2 names", "-C", "node", "key", "passphrase", "--passphrase-file", "pass2", "--new-passphrase-file", "pass")
		o.does("-C", "node", "key", "drill", "--passphrase-file", "pass2")
	}

	// If the stick is not connected, the target of the link is missing, and the commands fail.
	if err := os.Rename(o.path("stick"), o.path("away")); err != nil {
		t.Fatal(err)
	}
	o.cannot("connect the medium", "-C", "node", "key", "passphrase", "--passphrase-file", "pass2", "--new-passphrase-file", "pass")
	o.cannot("connect the medium", "-C", "other", "init", "creditors-agent", "--server", "ca.example.com:1234", "--key", link, "--passphrase-file", "pass")
}

// If the commands for the root key are used wrongly, the error says so and names the cause:
// the flag, the file, or that one file contains several shares.
func TestWrongUseOfKeys(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse"))
	o.write("empty", nil)
	o.write("short", []byte("abc"))
	o.makesNode("key", "pass")
	if err := os.Mkdir(o.path("folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	o.cannot("is not a regular file", "-C", "node", "key", "passphrase", "--key", "folder", "--passphrase-file", "pass", "--new-passphrase-file", "pass")
	for _, command := range [][]string{{"drill"}, {"split", "--shares", "2", "--threshold", "2"}} {
		o.cannot("/dev/null is not a regular file", slices.Concat([]string{"-C", "node", "key"}, command, []string{"--key", "/dev/null", "--passphrase-file", "pass"})...)
	}
	// Every error about a damaged key names the remedy, and joining shares does not overwrite
	// the damaged key.
	for _, damaged := range []string{"", "-----BEGIN ENCRYPTED PRIVATE KEY-----\nMIIF"} {
		o.write("damaged", []byte(damaged))
		for _, command := range [][]string{{"key", "drill"}, {"server-cert", "issue", "s.key", "s.crt"}} {
			o.cannot("key join", slices.Concat([]string{"-C", "node"}, command, []string{"--key", "damaged", "--passphrase-file", "pass"})...)
		}
		o.cannot("key join", "-C", "other", "init", "creditors-agent", "--server", "x.example.com:1", "--key", "damaged", "--passphrase-file", "pass")
		o.cannot("move it away first", "-C", "node", "key", "join", "--out", "damaged", "--passphrase-file", "pass")
	}
	o.cannot("standard input holds one passphrase only", "-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "-", "--new-passphrase-file", "-")
	o.cannot("new passphrase file empty", "-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "pass", "--new-passphrase-file", "empty")
	o.cannot("new passphrase file: ", "-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "pass", "--new-passphrase-file", "missing")
	o.cannot(": passphrase file empty", "-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "empty", "--new-passphrase-file", "pass")

	o.does("-C", "node", "key", "split", "--shares", "2", "--threshold", "2", "--text", "--out", "pages", "--key", "key", "--passphrase-file", "pass")
	first, second := "pages/share-1-of-2.txt", "pages/share-2-of-2.txt"
	o.write("all", []byte(o.read(first)+o.read(second)))
	o.cannot("but several", "-C", "node", "key", "join", "--out", "joined", "--passphrase-file", "pass", "all")
	o.cannot("--key names a key file", "-C", "node", "key", "drill", "--key", "key", "--passphrase-file", "pass", first, second)
	// A file that is not a share is rejected after only its beginning has been read.
	o.write("huge", nil)
	if err := os.Truncate(o.path("huge"), 3<<30); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	o.cannot("huge is larger than 262144 bytes", "-C", "node", "key", "join", "--out", "joined", "--passphrase-file", "pass", "huge")
	o.write("scan.pdf", append([]byte("%PDF-1.4\n"), make([]byte, 1<<20)...))
	o.cannot("but a PDF", "-C", "node", "key", "join", "--out", "joined", "--passphrase-file", "pass", "scan.pdf")
}

// "key drill" names the temporary files that an interrupted command has left beside the root
// key. "key passphrase" removes those of them that it has proved to be copies of the key, and
// no other files.
func TestLeftoversBesideKey(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse"))
	o.write("pass2", []byte("another much longer passphrase"))
	o.makesNode("key", "pass")
	o.write(".key.tmp-123", []byte(o.read("key")))
	o.write(".key.tmp-456", []byte(o.read("key")[:100]))
	o.write(".key.tmp-notes", []byte(o.read("key")))
	o.write(".other.tmp-123", []byte(o.read("key")))
	if out := o.does("-C", "node", "key", "drill", "--key", "key", "--passphrase-file", "pass"); !strings.Contains(out, ".key.tmp-123") || !strings.Contains(out, ".key.tmp-456") {
		t.Errorf("the temporary files are not named:\n%s", out)
	}
	out := o.does("-C", "node", "key", "passphrase", "--key", "key", "--passphrase-file", "pass", "--new-passphrase-file", "pass2")
	if !strings.Contains(out, "Removed .key.tmp-123") || !strings.Contains(out, ".key.tmp-456 may hold") {
		t.Errorf("the output does not name the removed and the remaining file:\n%s", out)
	}
	for name, there := range map[string]bool{".key.tmp-123": false, ".key.tmp-456": true, ".key.tmp-notes": true, ".other.tmp-123": true, "key": true} {
		if _, err := os.Lstat(o.path(name)); (err == nil) != there {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// "fulfil" signs nothing if it cannot compare the request with a copy of the node's directory
// that the operator has named, or with a damaged copy. If there is no copy, the key is
// sufficient.
func TestFulfilWithoutCopy(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse"))
	o.makesNode("key", "pass")
	o.does("-C", "node", "request", "new", "request.json", "--bundle", "node.zip")
	fulfil := []string{"fulfil", "--yes", "--key", "key", "--passphrase-file", "pass", "request.json", "answer.json"}
	o.cannot("nothing is signed", append([]string{"-C", "nod"}, fulfil...)...)
	if err := os.Remove(o.path("node/db/nodeid")); err != nil {
		t.Fatal(err)
	}
	o.cannot("nothing is signed", append([]string{"-C", "node"}, fulfil...)...)
	if err := os.Mkdir(o.path("db"), 0o755); err != nil {
		t.Fatal(err)
	}
	o.cannot("nothing is signed", fulfil...)
	if _, err := os.Lstat(o.path("answer.json")); err == nil {
		t.Error("fulfil has made an answer")
	}
	if err := os.Remove(o.path("db")); err != nil {
		t.Fatal(err)
	}
	if out := o.does(fulfil...); !strings.Contains(out, "no copy of the node's directory") || !strings.Contains(out, "file stomp.toml") {
		t.Error(out)
	}
}
