package cli

import (
	"bytes"
	"crypto/x509"
	"encoding/pem"
	"log/slog"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// If other users can read the node's encrypted root key, a service starts only if
// that is allowed, and then warns. If they can read a root key that is not
// encrypted, it never starts. A device in place of the key file, such as
// /dev/null, is not a key.
func TestCheckRootKey(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	n := nodetest.New(t, nodetype.CreditorsAgent, "localhost:1234")
	key, err := pki.GenerateKey(pki.P256)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := pki.EncodeEncryptedKey(key, []byte("correct horse battery staple"))
	if err != nil {
		t.Fatal(err)
	}
	plain, err := pki.EncodeKey(key)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 The reference's root keys have this format.
	old, err := x509.EncryptPEMBlock(strings.NewReader(strings.Repeat("x", 64)), "PRIVATE KEY", der, []byte("passphrase"), x509.PEMCipherAES128)
	if err != nil {
		t.Fatal(err)
	}
	traditional := pem.EncodeToMemory(old)
	for _, tt := range []struct {
		name             string
		data             []byte
		mode             os.FileMode
		allow            bool
		wantLog, wantErr string // parts of the log and the error
	}{
		{"encrypted", encrypted, 0o600, false, "keep it offline", ""},
		{"encrypted, open to others", encrypted, 0o644, false, "", "--allow-root-key"},
		{"encrypted, open to others, allowed", encrypted, 0o644, true, "other users can read the root key", ""},
		{"encrypted by DEK-Info, allowed", traditional, 0o644, true, "other users can read the root key", ""},
		{"plain", plain, 0o600, false, "keep it offline", ""},
		{"plain, open to others", plain, 0o644, false, "", "must not run"},
		{"plain, open to others, allowed", plain, 0o644, true, "", "not encrypted"},
		{"no key, allowed", []byte("key"), 0o644, true, "", "not encrypted"},
		{"too large, allowed", make([]byte, maxRootKey+1), 0o644, true, "", "larger"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := n.DefaultKeyFile()
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, tt.data, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := os.Chmod(path, tt.mode); err != nil {
				t.Fatal(err)
			}
			var log bytes.Buffer
			err := checkRootKey(n.Dir, tt.allow, slog.New(slog.NewTextHandler(&log, nil)))
			if (err == nil) != (tt.wantErr == "") || err != nil && !strings.Contains(err.Error(), tt.wantErr) {
				t.Errorf("error %v, want %q", err, tt.wantErr)
			}
			if !strings.Contains(log.String(), tt.wantLog) || (log.Len() == 0) != (tt.wantLog == "") {
				t.Errorf("log %q, want %q", &log, tt.wantLog)
			}
		})
	}
	if err := os.Remove(n.DefaultKeyFile()); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(os.DevNull, n.DefaultKeyFile()); err != nil {
		t.Fatal(err)
	}
	if err := checkRootKey(n.Dir, false, slog.New(slog.DiscardHandler)); err != nil {
		t.Errorf("%s in place of the key: %v", os.DevNull, err)
	}
}
