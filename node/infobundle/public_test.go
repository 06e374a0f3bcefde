package infobundle

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"regexp"
	"strings"
	"testing"

	"peerlink/node/pki"
)

// CheckPublic refuses private keys, in whatever form and under whatever name, and
// files whose names suggest a secret. It accepts certificates and public keys.
func TestCheckPublic(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	sec1, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	encrypted, err := pki.EncodeEncryptedKey(key, []byte("correct horse"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(encrypted)
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	inPEM := func(kind string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	utf16 := "\xff\xfe"
	for _, c := range string(encrypted) {
		utf16 += string([]byte{byte(c), 0})
	}
	base := base64.StdEncoding.EncodeToString
	lines := regexp.MustCompile(`.{1,64}`).ReplaceAllString(base(x509.MarshalPKCS1PrivateKey(rsaKey)), "$0\r\n")
	for what, content := range map[string]string{
		"PKCS#8 in base64": base(pkcs8), "SEC 1 in base64": "key: " + base(sec1) + "\n", "PKCS#1 in lines of base64": "My key\n\n" + lines + "\nKeep it secret.\n",
		"encrypted in base64": base(block.Bytes), "PKCS#8 in base64 for URLs": `{"key":"` + base64.RawURLEncoding.EncodeToString(pkcs8) + `"}`,
		"PKCS#8 in DER and a line end": string(pkcs8) + "\n",
		"PKCS#8":                       inPEM("PRIVATE KEY", pkcs8), "SEC 1": inPEM("EC PRIVATE KEY", sec1), "encrypted": string(encrypted),
		"PKCS#1": inPEM("RSA PRIVATE KEY", x509.MarshalPKCS1PrivateKey(rsaKey)), "OpenSSH": inPEM("OPENSSH PRIVATE KEY", []byte("x")),
		"below a text": "My certificate and key:\r\n" + inPEM("CERTIFICATE", public) + inPEM("PRIVATE KEY", pkcs8), "UTF-16": utf16,
		"PKCS#8 in DER": string(pkcs8), "SEC 1 in DER": string(sec1), "PKCS#1 in DER": string(x509.MarshalPKCS1PrivateKey(rsaKey)), "encrypted in DER": string(block.Bytes),
		"PGP": "-----BEGIN PGP PRIVATE KEY BLOCK-----\n", "PuTTY": "PuTTY-User-Key-File-3: ssh-ed25519\n", "QR code": "PEERLINK-SHARE-1:AAAA",
		"share": "\nShare 1 of 5 of a root key. Any 3 of these shares restore it, with its passphrase.\n",
	} {
		err := CheckPublic(File{"terms.txt", []byte(content)})
		if err == nil || !strings.Contains(err.Error(), "terms.txt") || strings.Contains(err.Error(), "BEGIN") {
			t.Errorf("%s: %v", what, err)
		}
	}
	for _, name := range []string{"passphrase.txt", "pass", "db/PASSWORD", "root.passwd", "my-secrets.toml", "node.p12", "node.pfx", "secret.d/x",
		"stomp.toml.txt", "stomp.toml.1", "STOMP.TOML.new", "updated-at.txt.txt", "core", "core.4711", "docs/core", "vgcore.1"} {
		if CheckPublic(File{name, []byte("x")}) == nil {
			t.Errorf("%s is accepted", name)
		}
	}
	for name, content := range map[string]string{
		"root-ca.crt": inPEM("CERTIFICATE", public), "registry.key": inPEM("PUBLIC KEY", public), "public.der": string(public), "empty": "",
		"compass.txt": "x", "README.md": "Keep your private key private. A PRIVATE KEY goes to nobody.", "core/terms.txt": "x", "score": "x", "core.txt": "x", "stomp.tom": "x",
		"certificate.txt": base(public), "hash.txt": strings.Repeat("MIIEvgIBADANBgkqhkiG9w0BAQEFAASC", 40), "secretary.txt": "x", "passage.txt": "x",
	} {
		if err := CheckPublic(File{name, []byte(content)}); err != nil {
			t.Error(err)
		}
	}
}
