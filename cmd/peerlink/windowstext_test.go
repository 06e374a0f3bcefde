package main

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"peerlink/node/pki"
)

// notepad returns the text as Notepad writes it: with a byte order mark and CRLF line ends.
func notepad(text string) []byte {
	return []byte("\ufeff" + strings.ReplaceAll(text, "\n", "\r\n"))
}

// Every command that reads keys, certificates or requests accepts them after an editor or a
// shell of Windows has rewritten the files.
func TestTextFromWindows(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	as := []func(string) []byte{notepad, powershell}
	again := func(file string) {
		o.write(file, as[0](o.read(file)))
		slices.Reverse(as)
	}
	o.write("pass", []byte("correct horse battery staple"))
	// makes makes a node, and returns its fingerprint, which its operator would read out.
	makes := func(dir string, args ...string) string {
		out := o.does(append([]string{"-C", dir, "init", "--server", "x.example.com:1", "--key-type", "p256", "--passphrase-file", "pass"}, args...)...)
		_, fingerprint, _ := strings.Cut(out, "fingerprint")
		return strings.Fields(fingerprint)[0]
	}
	agent := makes("node", "creditors-agent", "--key", "key")
	again("key")
	o.does("-C", "node", "key", "drill", "--key", "key", "--passphrase-file", "pass")
	again("node/root-ca.crt")
	o.does("-C", "node", "server-cert", "request", "server.key", "server.csr")
	again("server.csr")
	o.does("-C", "node", "request", "new", "--csr", "server.csr", "request.json")
	again("request.json")
	o.does("-C", "node", "fulfil", "request.json", "answer.json", "--yes", "--key", "key", "--passphrase-file", "pass")
	again("answer.json")
	o.does("-C", "node", "request", "file", "answer.json")
	again("server.key")
	again("server.crt")
	if out, _ := o.run("-C", "node", "check", "--key", "key", "--server-cert", "server.crt", "--server-key", "server.key"); strings.Contains(out, "PEM block") || strings.Count(out, "byte order mark") != 4 {
		t.Errorf("check: %s", out)
	}
	// Only the address is wrong: the certificate and its key have been read.
	o.cannot("listen for peers", "-C", "node", "serve", "--state", "state", "--server-cert", "server.crt", "--server-key", "server.key", "--listen", "192.0.2.1:1")

	bank := makes("bank", "accounting-authority", "--id", "1234abcd")
	o.does("-C", "node", "bundle", "create", "node.zip", "--key", "key", "--passphrase-file", "pass")
	o.does("-C", "bank", "bundle", "create", "bank.zip", "--passphrase-file", "pass")
	o.does("-C", "node", "peer", "sign", "bank.zip", "--fingerprint", bank, "--key", "key", "--passphrase-file", "pass")
	o.does("-C", "bank", "peer", "sign", "node.zip", "--fingerprint", agent, "--passphrase-file", "pass")
	certs, err := filepath.Glob(o.path("bank/peers/*/peercert.crt"))
	if err != nil || len(certs) != 1 {
		t.Fatal(certs, err)
	}
	again(certs[0])
	o.does("-C", "node", "peer", "register", certs[0])
	for _, file := range []string{"root-ca.crt", "peercert.crt", "sub-ca.crt"} {
		again("node/peers/1234abcd/" + file)
	}
	if out := o.does("-C", "node", "peer", "list"); !strings.Contains(out, "1234abcd") {
		t.Error(out)
	}
}

// If a file that should contain a share is not a text, the error says so, and does not report
// mistakes in a share.
func TestSharesNotText(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse battery staple"))
	o.makesNode("key", "pass")
	o.write("zip", []byte("PK\x03\x04\x14\x00\x00\x00"))
	o.write("utf16", powershell("1 abandon ability able about")[2:]) // without its mark
	for _, file := range []string{"zip", "utf16"} {
		o.cannot("not a text file in UTF-8", "-C", "node", "key", "join", "--out", "joined", file)
	}
}

// "init" prints a notice if the given root key does not exist, so that a new one is made, and
// a warning if the root key is not encrypted.
func TestKeyOfInit(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse battery staple"))
	initNode := func(dir, key string) string {
		return o.does("-C", dir, "init", "creditors-agent", "--server", "ca.example.com:1234", "--key-type", "p256", "--key", key, "--passphrase-file", "pass")
	}
	if out := initNode("node", "typo"); !strings.Contains(out, "There is no root key at typo") {
		t.Error(out)
	}
	if out := initNode("node2", "typo"); strings.Contains(out, "There is no root key") || strings.Contains(out, "not encrypted") {
		t.Error(out)
	}
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := pki.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	o.write("plain", plain)
	if out := initNode("node3", "plain"); !strings.Contains(out, "plain is not encrypted") || !strings.Contains(out, "peerlink key passphrase") {
		t.Error(out)
	}
}
