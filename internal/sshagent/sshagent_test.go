package sshagent

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"io"
	"math/big"
	"net"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
	"golang.org/x/crypto/ssh/agent"
)

// fake is an agent in this process whose signatures a test may change.
type fake struct {
	agent.ExtendedAgent
	change func(key ssh.PublicKey, data []byte, sig *ssh.Signature) (*ssh.Signature, error)
}

func (f fake) SignWithFlags(key ssh.PublicKey, data []byte, flags agent.SignatureFlags) (*ssh.Signature, error) {
	sig, err := f.ExtendedAgent.SignWithFlags(key, data, flags)
	if err != nil || f.change == nil {
		return sig, err
	}
	return f.change(key, data, sig)
}

// serve makes an agent with the key the one of the environment, and returns the key as [Open]
// does.
func serve(t *testing.T, f fake, key any) (*Key, error) {
	t.Helper()
	f.ExtendedAgent = agent.NewKeyring().(agent.ExtendedAgent)
	if err := f.Add(agent.AddedKey{PrivateKey: key, Comment: "root"}); err != nil {
		t.Fatal(err)
	}
	listen(t, func(c net.Conn) { agent.ServeAgent(f, c) })
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Open(t.Context(), ssh.FingerprintSHA256(signer.PublicKey()), func() {})
}

// listen lets handle answer the connections to the agent of the environment.
func listen(t *testing.T, handle func(net.Conn)) {
	t.Helper()
	socket := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Skipf("no Unix sockets: %v", err)
	}
	t.Cleanup(func() { l.Close() })
	t.Setenv("SSH_AUTH_SOCK", socket)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() { defer c.Close(); handle(c) }()
		}
	}()
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func ecdsaKey(t *testing.T, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// The signatures are those that crypto/x509 expects of RSA and ECDSA with SHA-256, also if R or S
// has its top bit set or is short, which happens in a few of many signatures.
func TestSignMessage(t *testing.T) {
	for name, private := range map[string]crypto.Signer{"RSA": rsaKey(t), "P-256": ecdsaKey(t, elliptic.P256())} {
		key, err := serve(t, fake{}, private)
		if err != nil {
			t.Fatal(name, err)
		}
		for i := range 64 {
			message := []byte{byte(i)}
			sig, err := crypto.SignMessage(key, rand.Reader, message, crypto.SHA256)
			if err != nil {
				t.Fatal(name, err)
			}
			sum := sha256.Sum256(message)
			switch pub := key.Public().(type) {
			case *rsa.PublicKey:
				err = rsa.VerifyPKCS1v15(pub, crypto.SHA256, sum[:], sig)
			case *ecdsa.PublicKey:
				if !ecdsa.VerifyASN1(pub, sum[:], sig) {
					t.Fatalf("%s: signature %x is not valid", name, sig)
				}
			}
			if err != nil {
				t.Fatal(name, err)
			}
		}
		template := &x509.Certificate{SerialNumber: big.NewInt(1)}
		if _, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key); err != nil {
			t.Error(name, err)
		}
	}
}

// An RSA signature without its leading zeros, as some agents make it, is completed.
func TestShortRSA(t *testing.T) {
	private := rsaKey(t)
	trimmed := false
	key, err := serve(t, fake{change: func(_ ssh.PublicKey, _ []byte, sig *ssh.Signature) (*ssh.Signature, error) {
		if trimmed = sig.Blob[0] == 0; trimmed {
			sig.Blob = sig.Blob[1:]
		}
		return sig, nil
	}}, private)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; !trimmed; i++ { // PKCS #1 v1.5 is deterministic, and one in 256 signatures begins with a zero
		sig, err := key.SignMessage(nil, big.NewInt(int64(i)).Bytes(), crypto.SHA256)
		if err != nil {
			t.Fatal(err)
		}
		if len(sig) != key.Public().(*rsa.PublicKey).Size() {
			t.Fatalf("signature of %d bytes", len(sig))
		}
	}
}

// No signature leaves the package that is not the requested one: another message, another hash,
// damage.
func TestWrongSignature(t *testing.T) {
	private := rsaKey(t)
	other, err := ssh.NewSignerFromKey(ecdsaKey(t, elliptic.P256()))
	if err != nil {
		t.Fatal(err)
	}
	own, err := ssh.NewSignerFromKey(private)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(ssh.PublicKey, []byte, *ssh.Signature) (*ssh.Signature, error){
		"SHA-1": func(_ ssh.PublicKey, data []byte, _ *ssh.Signature) (*ssh.Signature, error) {
			return own.Sign(rand.Reader, data)
		},
		"SHA-512": func(_ ssh.PublicKey, data []byte, _ *ssh.Signature) (*ssh.Signature, error) {
			return own.(ssh.AlgorithmSigner).SignWithAlgorithm(rand.Reader, data, ssh.KeyAlgoRSASHA512)
		},
		"other key": func(_ ssh.PublicKey, data []byte, _ *ssh.Signature) (*ssh.Signature, error) {
			return other.Sign(rand.Reader, data)
		},
		"damaged": func(_ ssh.PublicKey, _ []byte, sig *ssh.Signature) (*ssh.Signature, error) {
			sig.Blob[10] ^= 1
			return sig, nil
		},
		"empty": func(_ ssh.PublicKey, _ []byte, sig *ssh.Signature) (*ssh.Signature, error) {
			sig.Blob = nil
			return sig, nil
		},
		"too long": func(_ ssh.PublicKey, _ []byte, sig *ssh.Signature) (*ssh.Signature, error) {
			sig.Blob = append([]byte{0}, sig.Blob...)
			return sig, nil
		},
	} {
		key, err := serve(t, fake{change: change}, private)
		if err != nil {
			t.Fatal(name, err)
		}
		if sig, err := key.SignMessage(nil, []byte("message"), crypto.SHA256); err == nil {
			t.Errorf("%s: accepted %x", name, sig)
		}
	}
	key, err := serve(t, fake{}, private)
	if err != nil {
		t.Fatal(err)
	}
	for _, opts := range []crypto.SignerOpts{crypto.SHA384, &rsa.PSSOptions{Hash: crypto.SHA256}} {
		if _, err := key.SignMessage(nil, nil, opts); err == nil {
			t.Errorf("signed with %v", opts)
		}
	}
	if _, err := key.Sign(rand.Reader, make([]byte, 32), crypto.SHA256); err == nil {
		t.Error("signed a digest")
	}
	if _, err := key.SignMessage(nil, make([]byte, maxMessage+1), crypto.SHA256); err == nil || !strings.Contains(err.Error(), "at most") {
		t.Errorf("a message that is too long: %v", err)
	}
}

// An agent that never answers holds up nobody for ever: the context ends the wait, and so does the timeout. The
// caller is told that somebody may have to touch a token.
func TestSilentAgent(t *testing.T) {
	connected := make(chan struct{}, 2)
	listen(t, func(c net.Conn) { connected <- struct{}{}; io.Copy(io.Discard, c) })
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-connected; cancel() }()
	if _, err := Open(ctx, "SHA256:x", nil); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("interrupted: %v", err)
	}

	private := rsaKey(t)
	told := make(chan struct{})
	release := make(chan struct{})
	defer close(release)
	key, err := serve(t, fake{change: func(ssh.PublicKey, []byte, *ssh.Signature) (*ssh.Signature, error) {
		<-release
		return nil, io.EOF
	}}, private)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithCancel(t.Context())
	key.ctx, key.waiting = ctx, func() { close(told) }
	go func() { <-told; cancel() }()
	if _, err := key.SignMessage(nil, []byte("message"), crypto.SHA256); err == nil || !strings.Contains(err.Error(), "interrupted") {
		t.Errorf("interrupted while the agent waits: %v", err)
	}
	err = call(t.Context(), key.socket, waitingAfter/100, func(c agent.ExtendedAgent) error {
		_, err := c.SignWithFlags(key.ssh, nil, agent.SignatureFlagRsaSha256)
		return err
	})
	if err == nil || !strings.Contains(err.Error(), "touch it when it blinks") {
		t.Errorf("timeout: %v", err)
	}
}

// An agent's answer that is no answer is an error.
func TestMalformedAnswers(t *testing.T) {
	for _, answer := range []string{"", "\x00\x00\x00\x00", "\xff\xff\xff\xff", "\x00\x00\x00\x05\x0c\xff\xff\xff\xff", "\x00\x00\x00\x01\x05"} {
		listen(t, func(c net.Conn) { io.WriteString(c, answer) })
		if _, err := Open(t.Context(), "SHA256:x", nil); err == nil {
			t.Errorf("%q: no error", answer)
		}
	}
}

// Converted signatures are DER with the same two numbers, and malformed ones are errors.
func FuzzEncodeECDSA(f *testing.F) {
	f.Add(ssh.Marshal(struct{ R, S *big.Int }{big.NewInt(0x80), big.NewInt(1)}))
	f.Add([]byte{0, 0, 0, 1})
	f.Fuzz(func(t *testing.T, blob []byte) {
		der, err := encodeECDSA(blob)
		if err != nil {
			return
		}
		var sig struct{ R, S *big.Int }
		if rest, err := asn1.Unmarshal(der, &sig); err != nil || len(rest) > 0 {
			t.Fatalf("%x: %v", der, err)
		}
	})
}
