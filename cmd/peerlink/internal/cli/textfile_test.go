package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/smp"
)

// Certificates that a Windows editor or shell has saved with a byte order mark or in
// UTF-16 are decoded when they are read, and the result has no byte order mark.
func TestByteOrderMarks(t *testing.T) {
	a := nodetest.New(t, nodetype.AccountingAuthority, "a.example.com:1")
	c := nodetest.New(t, nodetype.CreditorsAgent, "c.example.com:1")
	a.Sign(t, c.Bundle(t))
	c.Sign(t, a.Bundle(t))
	cert, err := os.ReadFile(filepath.Join(a.Path(), "peers", c.Identity().ID, "peercert.crt"))
	if err != nil {
		t.Fatal(err)
	}
	utf16 := "\xff\xfe"
	for _, b := range cert {
		utf16 += string([]byte{b, 0})
	}
	for _, content := range []string{"\ufeff" + string(cert), utf16} {
		path := filepath.Join(t.TempDir(), "cert.crt")
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
		text, err := readText(t.Context(), path, maxInputFile)
		if err != nil || string(text) != string(cert) {
			t.Fatalf("read %.40q, %v", text, err)
		}
		if _, _, err := c.RegisterPeer(t.Context(), text); err != nil {
			t.Error(err)
		}
		if _, _, err := c.RegisterPeer(t.Context(), []byte(content)); err == nil || !strings.Contains(err.Error(), "byte order mark") {
			t.Errorf("RegisterPeer with a byte order mark: got error %v, want one that names it", err)
		}
		if certs, err := readCerts(t.Context(), []string{path}); err != nil || len(certs) != 1 {
			t.Errorf("%d certificates, %v", len(certs), err)
		}
	}
}

// A byte order mark before messages is skipped. Messages in UTF-16 are refused where
// they cannot be decoded.
func TestByteOrderMarkBeforeMessages(t *testing.T) {
	const body = `{"type": "AccountPurge"}`
	path := filepath.Join(t.TempDir(), "message.json")
	if err := os.WriteFile(path, []byte("\ufeff"+body), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err := new(app).readMessage(t.Context(), path); err != nil || string(got) != body {
		t.Errorf("read %q, %v", got, err)
	}
	// The error is about the message, not about the byte order mark.
	if _, err := parseMessages(strings.NewReader("\ufeff"+body), "x", smp.View{}, func(done, total int) {}); err == nil || !strings.Contains(err.Error(), "line 1") || strings.Contains(err.Error(), "JSON") {
		t.Error(err)
	}
	if _, err := parseMessages(strings.NewReader("\xff\xfea\x00"), "x", smp.View{}, func(done, total int) {}); err == nil || !strings.Contains(err.Error(), "UTF-16") {
		t.Error(err)
	}
	if got, err := parseMessages(strings.NewReader("\ufeff"), "x", smp.View{}, func(done, total int) {}); err != nil || len(got) != 0 {
		t.Errorf("an empty file: %v, %v", got, err)
	}
}
