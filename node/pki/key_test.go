package pki

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"testing"
)

// GenerateKey makes a key of each kind, and ParseKeyKind parses the names of the
// kinds.
func TestGenerateKey(t *testing.T) {
	for kind, want := range map[KeyKind]string{RSA3072: "rsa3072", RSA4096: "rsa4096", P256: "p256", P384: "p384"} {
		if got, err := ParseKeyKind(want); err != nil || got != kind || kind.String() != want {
			t.Errorf("%s: got %v, %v", want, got, err)
		}
		key, err := GenerateKey(kind)
		check(t, err)
		var got string
		switch pub := key.Public().(type) {
		case *rsa.PublicKey:
			got = map[int]string{3072: "rsa3072", 4096: "rsa4096"}[pub.N.BitLen()]
		case *ecdsa.PublicKey:
			got = map[string]string{"P-256": "p256", "P-384": "p384"}[pub.Curve.Params().Name]
		}
		if got != want {
			t.Errorf("%s: got a key of kind %q", want, got)
		}
	}
	for _, kind := range []KeyKind{-1, 4} {
		if got, want := kind.String(), fmt.Sprintf("pki.KeyKind(%d)", int(kind)); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
		if _, err := GenerateKey(kind); !errors.Is(err, ErrKeyKind) {
			t.Errorf("%v: got %v, want ErrKeyKind", kind, err)
		}
	}
	if _, err := ParseKeyKind("dsa"); !errors.Is(err, ErrKeyKind) {
		t.Errorf("got %v, want ErrKeyKind", err)
	}
}

// Signatures over data are compatible with "openssl dgst -sha256" in both
// directions, and valid only for the same data and key.
func TestSignData(t *testing.T) {
	data := []byte("the content of nodeinfo.zip")
	for what, key := range map[string]crypto.Signer{"rsa": testRSAKey(), "ec": ecKey(0), "p384": mustKey(P384)} {
		dir := t.TempDir()
		writeFile(t, dir, "data", data)
		spki, err := x509.MarshalPKIXPublicKey(key.Public())
		check(t, err)
		writeFile(t, dir, "pub.pem", pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))
		keyPEM, err := EncodeKey(key)
		check(t, err)
		writeFile(t, dir, "key.pem", keyPEM)

		sig, err := SignData(key, data)
		check(t, err)
		writeFile(t, dir, "sig", sig)
		if err := VerifyData(key.Public(), data, sig); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		flipped := append([]byte(nil), sig...)
		flipped[len(flipped)-1] ^= 1
		for _, bad := range []struct {
			pub       crypto.PublicKey
			data, sig []byte
		}{
			{key.Public(), append([]byte{' '}, data...), sig},
			{key.Public(), data, flipped},
			{key.Public(), data, nil},
			{key.Public(), data, append(sig[:len(sig):len(sig)], 0)},
			{ecKey(7).Public(), data, sig},
			{testRSAKey2().Public(), data, sig},
		} {
			if err := VerifyData(bad.pub, bad.data, bad.sig); !errors.Is(err, errSignature) {
				t.Errorf("%s: got %v, want ErrSignature", what, err)
			}
		}
		mustOpenSSL(t, dir, "dgst", "-sha256", "-verify", "pub.pem", "-signature", "sig", "data")
		mustOpenSSL(t, dir, "dgst", "-sha256", "-sign", "key.pem", "-out", "theirs", "data")
		if err := VerifyData(key.Public(), data, readFile(t, dir, "theirs")); err != nil {
			t.Errorf("%s: OpenSSL's signature: %v", what, err)
		}
	}
}

// Any data that does not begin like a certificate can be signed, also empty data.
func TestSignNoData(t *testing.T) {
	sig, err := SignData(ecKey(0), nil)
	check(t, err)
	if err := VerifyData(ecKey(0).Public(), nil, sig); err != nil {
		t.Error(err)
	}
}

// Keys that "openssl dgst -sha256" cannot use are refused.
func TestSignDataRefuses(t *testing.T) {
	data := []byte("data")
	pub, priv, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	if _, err := SignData(priv, data); !errors.Is(err, ErrKeyKind) {
		t.Errorf("got %v, want ErrKeyKind", err)
	}
	if err := VerifyData(pub, data, nil); !errors.Is(err, ErrKeyKind) {
		t.Errorf("got %v, want ErrKeyKind", err)
	}
}
