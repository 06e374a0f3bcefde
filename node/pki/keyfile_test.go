package pki

import (
	"bytes"
	"crypto"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/asn1"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/youmark/pkcs8"
)

const testPass = "correct horse"

func passphrase(s string) func() ([]byte, error) {
	return func() ([]byte, error) { return []byte(s), nil }
}

// OpenSSL and this package read the key files that are written here. DecodeKey
// requests no passphrase for a key that is not encrypted. The passphrase has the
// maximum length.
func TestKeyFiles(t *testing.T) {
	dir := t.TempDir()
	for what, key := range map[string]crypto.Signer{"rsa": testRSAKey(), "ec": ecKey(0)} {
		plain, err := EncodeKey(key)
		check(t, err)
		writeFile(t, dir, what+".pem", plain)
		got, err := DecodeKey(plain, nil)
		check(t, err)
		if !sameKey(got.Public(), key.Public()) {
			t.Errorf("%s: got another key", what)
		}
	}
	longest := strings.Repeat("x", maxPassphrase)
	encrypted, err := EncodeEncryptedKey(testRSAKey(), []byte(longest))
	check(t, err)
	if !bytes.HasPrefix(encrypted, []byte("-----BEGIN ENCRYPTED PRIVATE KEY-----\n")) {
		t.Errorf("got %.60s", encrypted)
	}
	got, err := DecodeKey(encrypted, passphrase(longest))
	check(t, err)
	if !sameKey(got.Public(), testRSAKey().Public()) {
		t.Error("got another key")
	}
	if _, err := DecodeKey(encrypted, passphrase("wrong")); !errors.Is(err, ErrPassphrase) {
		t.Errorf("wrong passphrase: got %v, want ErrPassphrase", err)
	}

	// OpenSSL has a default memory limit for scrypt, 32 MiB.
	writeFile(t, dir, "encrypted.pem", encrypted)
	mustOpenSSL(t, dir, "pkey", "-in", "ec.pem", "-check", "-noout")
	want := mustOpenSSL(t, dir, "pkey", "-in", "rsa.pem", "-pubout")
	for _, command := range []string{"pkey", "rsa"} {
		if out := mustOpenSSL(t, dir, command, "-in", "encrypted.pem", "-passin", "pass:"+longest, "-pubout"); !strings.HasSuffix(out, want) && !strings.HasPrefix(out, want) {
			t.Errorf("openssl %s: got another key:\n%s", command, out)
		}
	}
	if _, ok := openssl(t, dir, "pkey", "-in", "encrypted.pem", "-passin", "pass:wrong", "-noout"); ok {
		t.Error("OpenSSL opens the key with another passphrase")
	}
}

// Key files in all formats that OpenSSL has written since old versions can be read,
// with the right passphrase only.
func TestKeysOfOpenSSL(t *testing.T) {
	dir := t.TempDir()
	rsaPEM, err := EncodeKey(testRSAKey())
	check(t, err)
	ecPEM, err := EncodeKey(ecKey(0))
	check(t, err)
	writeFile(t, dir, "rsa.pem", rsaPEM)
	writeFile(t, dir, "ec.pem", ecPEM)
	for _, tt := range []struct {
		command   string
		encrypted bool
	}{
		{"rsa -in rsa.pem -traditional", false},
		{"rsa -in rsa.pem -text", false},
		{"ec -in ec.pem", false},
		{"pkey -in ec.pem -traditional", false},
		{"pkey -in ec.pem -text", false},
		{"rsa -in rsa.pem -aes128", true},
		{"rsa -in rsa.pem -aes128 -traditional", true},
		{"rsa -in rsa.pem -des3 -traditional", true},
		{"ec -in ec.pem -aes256", true},
		{"pkcs8 -in rsa.pem -topk8", true},
		{"pkcs8 -in rsa.pem -topk8 -v2 aes192 -v2prf hmacWithSHA1 -iter 1000", true},
		{"pkcs8 -in rsa.pem -topk8 -v2 des3", true},
		{"pkcs8 -in rsa.pem -topk8 -v2prf hmacWithSHA224", true},
		{"pkcs8 -in rsa.pem -topk8 -v2prf hmacWithSHA384", true},
		{"pkcs8 -in ec.pem -topk8 -v2prf hmacWithSHA512 -v2 aes128", true},
		{"pkcs8 -in ec.pem -topk8 -scrypt", true},
	} {
		t.Run(tt.command, func(t *testing.T) {
			args := strings.Fields(tt.command)
			if tt.encrypted {
				args = append(args, "-passout", "pass:"+testPass)
			}
			mustOpenSSL(t, dir, append(args, "-out", "out.pem")...)
			data := readFile(t, dir, "out.pem")
			want := testRSAKey().Public()
			if strings.Contains(tt.command, "ec.pem") {
				want = ecKey(0).Public()
			}
			pass := passphrase(testPass)
			if !tt.encrypted {
				pass = nil
			}
			windows := bytes.ReplaceAll(data, []byte("\n"), []byte("\r\n"))
			for what, data := range map[string][]byte{"as it is": data, "CRLF after text": append([]byte("some text\r\n"), windows...)} {
				key, err := DecodeKey(data, pass)
				if err != nil || !sameKey(key.Public(), want) {
					t.Errorf("%s: got %v, %v", what, key, err)
				}
			}
			if tt.encrypted {
				for _, pass := range []func() ([]byte, error){nil, passphrase(""), passphrase("wrong"), passphrase(strings.Repeat("x", 2000))} {
					if _, err := DecodeKey(data, pass); !errors.Is(err, ErrPassphrase) {
						t.Errorf("wrong or no passphrase: got %v, want ErrPassphrase", err)
					}
				}
			}
		})
	}
}

// For a key that cannot be used, the error does not mention a wrong passphrase if
// the passphrase is right, but describes the key, and the conversion if that is
// possible. If the passphrase is wrong, the error is ErrPassphrase.
func TestUnsupportedKeys(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct {
		makes       string // commands that make the key plain.pem, or out.pem
		traditional bool
		want        error
		errText     string
	}{
		{"genpkey -algorithm ED25519 -out plain.pem", false, ErrKeyKind, "the passphrase is right, but this is a key of the kind Ed25519"},
		{"genpkey -algorithm ED448 -out plain.pem", false, ErrKeyKind, "Ed448"},
		{"genpkey -algorithm X25519 -out plain.pem", false, ErrKeyKind, "the passphrase is right, but this is a key of the kind X25519"},
		{"genpkey -algorithm RSA-PSS -pkeyopt rsa_keygen_bits:2048 -out plain.pem", false, ErrKeyKind, "RSA-PSS"},
		{"ecparam -name secp256k1 -genkey -noout -out plain.pem", false, ErrKeyKind, "secp256k1"},
		{"ecparam -name brainpoolP256r1 -genkey -noout -out plain.pem", true, ErrKeyKind, "brainpoolP256r1"},
		{"ecparam -name prime256v1 -param_enc explicit -genkey -noout -out plain.pem", false, ErrKeyKind, "-ec_param_enc named_curve"},
		{"ecparam -name prime256v1 -param_enc explicit -genkey -noout -out plain.pem", true, ErrKeyKind, "-ec_param_enc named_curve"},
		{"genrsa -out plain.pem 1024", false, ErrKeyKind, "1024 bits"},
		{"genrsa -traditional -out plain.pem 1024", true, ErrKeyKind, "1024 bits"},
		{"dsaparam -genkey -noout -out plain.pem 1024", false, ErrKeyKind, "DSA"},
	} {
		mustOpenSSL(t, dir, strings.Fields(tt.makes)...)
		if tt.traditional {
			command := "ec"
			if strings.Contains(tt.makes, "rsa") {
				command = "rsa -traditional"
			}
			mustOpenSSL(t, dir, append(strings.Fields(command), "-in", "plain.pem", "-aes128", "-passout", "pass:"+testPass, "-out", "out.pem")...)
		} else {
			mustOpenSSL(t, dir, "pkcs8", "-topk8", "-in", "plain.pem", "-passout", "pass:"+testPass, "-out", "out.pem")
		}
		data := readFile(t, dir, "out.pem")
		if _, err := DecodeKey(data, passphrase(testPass)); !errors.Is(err, tt.want) || errors.Is(err, ErrPassphrase) || !strings.Contains(err.Error(), tt.errText) {
			t.Errorf("%s (traditional: %v): got %v, want %v with %q", tt.makes, tt.traditional, err, tt.want, tt.errText)
		}
		if _, err := DecodeKey(data, passphrase("wrong")); !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s, wrong passphrase: got %v", tt.makes, err)
		}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(ed)
	check(t, err)
	if _, err := DecodeKey(pem.EncodeToMemory(&pem.Block{Type: pemPKCS8Key, Bytes: der}), nil); !errors.Is(err, ErrKeyKind) || !strings.Contains(err.Error(), "this is a key of the kind Ed25519") {
		t.Errorf("Ed25519, not encrypted: %v", err)
	}
	// The shortest keys in DER are recognized too.
	if _, err := DecodeKey(der, nil); !errors.Is(err, errNotKey) || !strings.Contains(err.Error(), "-inform DER") {
		t.Errorf("in DER: %v", err)
	}
	// An unsupported encryption is reported before the passphrase is requested.
	plain, err := EncodeKey(testRSAKey())
	check(t, err)
	writeFile(t, dir, "plain.pem", plain)
	for args, errText := range map[string]string{"-v1 PBE-SHA1-3DES": "PBE-SHA1-3DES", "-v2 camellia-256-cbc": "Camellia-256-CBC", "-v2 aria-256-cbc": "ARIA-256-CBC"} {
		mustOpenSSL(t, dir, append(strings.Fields("pkcs8 -topk8 -in plain.pem -out out.pem -passout pass:"+strings.ReplaceAll(testPass, " ", "")), strings.Fields(args)...)...)
		_, err := DecodeKey(readFile(t, dir, "out.pem"), func() ([]byte, error) { t.Errorf("%s: the passphrase was requested", args); return nil, nil })
		if !errors.Is(err, errNotKey) || !strings.Contains(err.Error(), errText) || !strings.Contains(err.Error(), "openssl pkcs8 -topk8 -v2 aes256 -in") {
			t.Errorf("%s: got %v", args, err)
		}
	}
}

// With a wrong passphrase, a key decrypts to a valid padding with a probability of
// 1/256. The error must be ErrPassphrase in this case as well.
func TestPaddingByChance(t *testing.T) {
	dir := t.TempDir()
	plain, err := EncodeKey(ecKey(0))
	check(t, err)
	writeFile(t, dir, "k.pem", plain)
	mustOpenSSL(t, dir, "ec", "-in", "k.pem", "-aes128", "-passout", "pass:"+testPass, "-out", "out.pem")
	data := readFile(t, dir, "out.pem")
	block, _ := pem.Decode(data)
	padded := 0
	for i := range 3000 {
		wrong := fmt.Sprint(i)
		//lint:ignore SA1019 The test has to contain the case.
		if _, err := x509.DecryptPEMBlock(block, []byte(wrong)); err == nil {
			padded++
		}
		if _, err := DecodeKey(data, passphrase(wrong)); !errors.Is(err, ErrPassphrase) {
			t.Fatalf("passphrase %s: got %v, want ErrPassphrase", wrong, err)
		}
	}
	if padded == 0 {
		t.Error("the case did not occur")
	}
}

// pbes2 encodes an encrypted key with any parameters.
func pbes2(kdf asn1.ObjectIdentifier, kdfParams []byte, cipher asn1.ObjectIdentifier, iv, ciphertext []byte) []byte {
	oid := func(o asn1.ObjectIdentifier) []byte {
		der, err := asn1.Marshal(o)
		if err != nil {
			panic(err)
		}
		return der
	}
	der := tlv(0x30,
		tlv(0x30, oid(oidPBES2), tlv(0x30,
			tlv(0x30, oid(kdf), kdfParams),
			tlv(0x30, oid(cipher), tlv(0x04, iv)))),
		tlv(0x04, ciphertext))
	return pem.EncodeToMemory(&pem.Block{Type: pemEncryptedKey, Bytes: der})
}

func integer(n int64) []byte {
	der, err := asn1.Marshal(n)
	if err != nil {
		panic(err)
	}
	return der
}

// keySamples returns key files for fuzzing.
func keySamples(t testing.TB) [][]byte {
	plain, err := EncodeKey(ecKey(0))
	check(t, err)
	salt, iv, text := tlv(0x04, make([]byte, 8)), make([]byte, 16), make([]byte, 32)
	return [][]byte{
		plain,
		pbes2(oidPBKDF2, tlv(0x30, salt, integer(1)), oidAES256CBC, iv, text),
		pbes2(oidScrypt, tlv(0x30, salt, integer(2), integer(1), integer(1)), oidAES256CBC, iv, text),
		[]byte("-----BEGIN RSA PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00000000000000000000000000000000\n\nAAAA\n-----END RSA PRIVATE KEY-----\n"),
	}
}

// Hostile key files are refused without a panic, before a passphrase is requested,
// and before any key derivation (which would take longer than the test is allowed
// to).
func TestHostileKeyFiles(t *testing.T) {
	salt, iv, text := tlv(0x04, make([]byte, 8)), make([]byte, 16), make([]byte, 32)
	sha256 := tlv(0x30, []byte{0x06, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 9}, tlv(0x05))
	md5 := tlv(0x30, []byte{0x06, 8, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 2, 6}, tlv(0x05))
	pbkdf2 := func(parts ...[]byte) []byte {
		return pbes2(oidPBKDF2, tlv(0x30, parts...), oidAES256CBC, iv, text)
	}
	scrypt := func(n, r, p int64, more ...[]byte) []byte {
		return pbes2(oidScrypt, tlv(0x30, append([][]byte{salt, integer(n), integer(r), integer(p)}, more...)...), oidAES256CBC, iv, text)
	}
	params := tlv(0x30, salt, integer(1000), sha256)
	plain, err := EncodeKey(ecKey(0))
	check(t, err)
	ed, err := func() ([]byte, error) {
		_, key, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			return nil, err
		}
		return x509.MarshalPKCS8PrivateKey(key)
	}()
	check(t, err)
	p224, err := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	check(t, err)
	p224DER, err := x509.MarshalPKCS8PrivateKey(p224)
	check(t, err)
	block := func(typ string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}) }

	for _, tt := range []struct {
		what string
		data []byte
		want error
	}{
		{"2^31-1 iterations", pbkdf2(salt, integer(1<<31-1), sha256), ErrKeyCost},
		{"one iteration too many", pbkdf2(salt, integer(maxPBKDF2Iterations+1), sha256), ErrKeyCost},
		{"2^63-1 iterations", pbkdf2(salt, integer(1<<63-1), sha256), ErrKeyCost},
		{"no iterations", pbkdf2(salt, integer(0), sha256), errNotKey},
		{"negative iterations", pbkdf2(salt, integer(-1), sha256), errNotKey},
		{"HMAC-MD5", pbkdf2(salt, integer(1), md5), errNotKey},
		{"key length", pbkdf2(salt, integer(1), integer(32), sha256), errNotKey},
		{"endless salt", pbkdf2(tlv(0x04, make([]byte, 2000)), integer(1)), errNotKey},
		{"scrypt with 16 GiB", scrypt(1<<24, 8, 1), ErrKeyCost},
		{"scrypt with N=2^62", scrypt(1<<62, 8, 1), ErrKeyCost},
		{"scrypt with large r", scrypt(2, 1<<62, 1), ErrKeyCost},
		{"scrypt with large p", scrypt(1<<14, 8, 1<<62), ErrKeyCost},
		{"scrypt with N=0", scrypt(0, 8, 1), errNotKey},
		{"scrypt with N=1", scrypt(1, 8, 1), errNotKey},
		{"scrypt with N=3", scrypt(3, 8, 1), errNotKey},
		{"scrypt with r=0", scrypt(2, 0, 1), errNotKey},
		{"scrypt with p=-1", scrypt(2, 1, -1), errNotKey},
		{"scrypt with a key length", scrypt(2, 1, 1, integer(32)), errNotKey},
		{"short IV", pbes2(oidPBKDF2, params, oidAES256CBC, iv[:8], text), errNotKey},
		{"half a block", pbes2(oidPBKDF2, params, oidAES256CBC, iv, text[:24]), errNotKey},
		{"no ciphertext", pbes2(oidPBKDF2, params, oidAES256CBC, iv, nil), errNotKey},
		{"AES-GCM", pbes2(oidPBKDF2, params, asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, 1, 46}, iv, text), errNotKey},
		{"unknown derivation", pbes2(oidPBES2, params, oidAES256CBC, iv, text), errNotKey},
		{"not DER", block(pemEncryptedKey, []byte("x")), errNotKey},
		{"DEK-Info with a short IV", []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00\n\nAAAA\n-----END EC PRIVATE KEY-----\n"), errNotKey},
		{"DEK-Info with half a block", []byte("-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00000000000000000000000000000000\n\nAAAA\n-----END EC PRIVATE KEY-----\n"), errNotKey},
		{"nothing", nil, errNotKey},
		{"text", []byte("my key"), errNotKey},
		{"a certificate", certPEM([]byte("x")), errNotKey},
		{"two keys", append(plain[:len(plain):len(plain)], plain...), errNotKey},
		{"malformed PKCS#8", block(pemPKCS8Key, []byte("x")), errNotKey},
		{"malformed PKCS#1", block(pemPKCS1Key, []byte("x")), errNotKey},
		{"malformed SEC 1", block(pemSEC1Key, []byte("x")), errNotKey},
		{"huge file", make([]byte, maxFile+1), errNotKey},
		{"huge key", block(pemPKCS1Key, make([]byte, maxKeyDER+1)), ErrKeyKind},
		{"Ed25519", block(pemPKCS8Key, ed), ErrKeyKind},
		{"P-224", block(pemPKCS8Key, p224DER), ErrKeyKind},
	} {
		pass := passphrase(testPass)
		if !strings.HasPrefix(tt.what, "DEK-Info") {
			pass = func() ([]byte, error) {
				t.Errorf("%s: the passphrase was requested", tt.what)
				return nil, errors.New("asked")
			}
		}
		if _, err := DecodeKey(tt.data, pass); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, err, tt.want)
		}
	}
}

// Encrypted keys with parameters up to the limits are accepted. The keys are only
// parsed and not decrypted, which would take seconds.
func TestKeyCostLimits(t *testing.T) {
	iv, text := make([]byte, 16), make([]byte, 32)
	salt := func(n int) []byte { return tlv(0x04, make([]byte, n)) }
	pbkdf2 := func(saltSize int, iterations int64) []byte {
		return pbes2(oidPBKDF2, tlv(0x30, salt(saltSize), integer(iterations)), oidAES256CBC, iv, text)
	}
	scrypt := func(n, r, p int64) []byte {
		return pbes2(oidScrypt, tlv(0x30, salt(8), integer(n), integer(r), integer(p)), oidAES256CBC, iv, text)
	}
	for _, tt := range []struct {
		what string
		data []byte
		want error
	}{
		{"salt of 1024 bytes", pbkdf2(1024, 1), nil},
		{"salt of 1025 bytes", pbkdf2(1025, 1), errNotKey},
		{"10 million iterations", pbkdf2(8, 10_000_000), nil},
		{"10 million and one iterations", pbkdf2(8, 10_000_001), ErrKeyCost},
		{"scrypt with 256 MiB", scrypt(1<<18, 8, 1), nil},
		{"scrypt with 512 MiB", scrypt(1<<19, 8, 1), ErrKeyCost},
		{"scrypt with 256 MiB, four times", scrypt(1<<18, 8, 4), nil},
		{"scrypt with 256 MiB, five times", scrypt(1<<18, 8, 5), ErrKeyCost},
		{"scrypt with 16 MiB, 64 times", scrypt(1<<14, 8, 64), nil},
		{"scrypt with 16 MiB, 65 times", scrypt(1<<14, 8, 65), ErrKeyCost},
	} {
		block, _ := pem.Decode(tt.data)
		if _, err := parsePBES2(block.Bytes); !errors.Is(err, tt.want) {
			t.Errorf("%s: got %v, want %v", tt.what, err, tt.want)
		}
	}
}

// The padding has between one byte and a whole block, and each of its bytes is the
// number of these bytes. Any other end means that the passphrase is wrong.
func TestPadding(t *testing.T) {
	key, iv := make([]byte, 32), make([]byte, 16)
	padding := func(n int) []byte { return bytes.Repeat([]byte{byte(n)}, n) }
	for _, tt := range []struct {
		what    string
		content int // bytes of the DER
		end     []byte
		ok      bool
	}{
		{"one byte", 31, padding(1), true},
		{"15 bytes", 33, padding(15), true},
		{"a whole block", 32, padding(16), true},
		{"more than a block", 31, padding(17), false},
		{"two blocks", 32, padding(32), false},
		{"none", 32, nil, false},
		{"one byte differs", 30, []byte{1, 2}, false},
		{"the number is too small", 30, []byte{1, 1}, false},
	} {
		der := tlv(0x30, make([]byte, tt.content-2))
		plain := append(der, tt.end...)
		block, err := aes.NewCipher(key)
		check(t, err)
		ciphertext := make([]byte, len(plain))
		cipher.NewCBCEncrypter(block, iv).CryptBlocks(ciphertext, plain)
		e := encryption{cipher: pkcs8.AES256CBC, iv: iv, ciphertext: ciphertext,
			derive: func([]byte, int) ([]byte, error) { return bytes.Clone(key), nil }}
		got, err := e.decrypt(nil)
		if tt.ok && (err != nil || !bytes.Equal(got, der)) || !tt.ok && !errors.Is(err, ErrPassphrase) {
			t.Errorf("%s: got %x, %v", tt.what, got, err)
		}
	}
}

// Files and keys of exactly the maximum size are accepted.
func TestKeyFileLimits(t *testing.T) {
	plain, err := EncodeKey(ecKey(0))
	check(t, err)
	for n, ok := range map[int]bool{maxFile: true, maxFile + 1: false} {
		_, err := DecodeKey(append(bytes.Repeat([]byte("\n"), n-len(plain)), plain...), nil)
		if ok && err != nil || !ok && !errors.Is(err, errNotKey) {
			t.Errorf("a file of %d bytes: %v", n, err)
		}
	}
	for n, want := range map[int]error{maxKeyDER: errNotKey, maxKeyDER + 1: ErrKeyKind} {
		// errNotKey comes from the parser, so that the limit was not exceeded.
		_, err := DecodeKey(pem.EncodeToMemory(&pem.Block{Type: pemPKCS1Key, Bytes: make([]byte, n)}), nil)
		if !errors.Is(err, want) {
			t.Errorf("a key of %d bytes: got %v, want %v", n, err, want)
		}
	}
}

// The error for an EC key without a curve calls the key damaged, and not a key of an
// unnamed kind.
func TestECKeyWithoutCurve(t *testing.T) {
	oid, err := asn1.Marshal(oidEC)
	check(t, err)
	_, err = parseDecrypted(pemPKCS8Key, tlv(0x30, integer(0), tlv(0x30, oid), tlv(0x04, make([]byte, 8))))
	if !errors.Is(err, ErrKeyKind) || !strings.Contains(err.Error(), "an EC key that is damaged") {
		t.Errorf("got %v", err)
	}
}

// DecodeKey returns the error of the passphrase function.
func TestPassphraseError(t *testing.T) {
	cancelled := errors.New("cancelled")
	samples := keySamples(t)
	for _, data := range samples[1:] {
		if _, err := DecodeKey(data, func() ([]byte, error) { return nil, cancelled }); !errors.Is(err, cancelled) {
			t.Errorf("got %v, want the function's error", err)
		}
	}
}

// EncodeEncryptedKey refuses an empty passphrase, with which the key would not be
// encrypted, and one that is too long for the reference's tools.
func TestEncodeKeyRefuses(t *testing.T) {
	for _, pass := range []string{"", strings.Repeat("x", maxPassphrase+1)} {
		if out, err := EncodeEncryptedKey(ecKey(0), []byte(pass)); err == nil {
			t.Errorf("passphrase of %d bytes: got %.40s", len(pass), out)
		}
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	check(t, err)
	if _, err := EncodeKey(ed); !errors.Is(err, ErrKeyKind) {
		t.Errorf("got %v, want ErrKeyKind", err)
	}
	if _, err := EncodeEncryptedKey(ed, []byte(testPass)); !errors.Is(err, ErrKeyKind) {
		t.Errorf("got %v, want ErrKeyKind", err)
	}
}
