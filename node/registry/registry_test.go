package registry

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"peerlink/internal/costtest"
	"peerlink/node/pki"
)

var (
	now = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

	// The key of the example in docs/registry.md.
	publisher    = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{7}, ed25519.SeedSize))
	publisherKey = publisher.Public().(ed25519.PublicKey)
	strangerKey  = ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize)).Public().(ed25519.PublicKey)
)

var digits = strings.Repeat("0123456789abcdef", 4)

// entry returns an [[authority]] with the given values, which are written without
// quoting.
func entry(id, name, fingerprint string) string {
	return "[[authority]]\nid = " + id + "\nname = " + name + "\nfingerprint = " + fingerprint + "\n"
}

func good(id string) string { return entry(`"`+id+`"`, `"A bank"`, `"sha256:`+digits+`"`) }

const head = "version = 1\n"

// parse accepts valid lists in every form that TOML permits.
func TestParse(t *testing.T) {
	for _, c := range []struct {
		name, list string
		want       []Entry
	}{
		{"no authority", head, nil},
		{"two", head + good("00000001") + good("abcdef99"), []Entry{{"00000001", "A bank", "sha256:" + digits}, {"abcdef99", "A bank", "sha256:" + digits}}},
		{"comments and space", "# x\n\n \tversion=1 # one\n  [[ authority ]] # a\n" + good("00000001")[14:], []Entry{{"00000001", "A bank", "sha256:" + digits}}},
		{"CRLF, no line end at the end", strings.TrimSpace(strings.ReplaceAll(head+good("00000001"), "\n", "\r\n")), []Entry{{"00000001", "A bank", "sha256:" + digits}}},
		{"other alphabets, escapes, brackets", head + entry(`"00000001"`, `"Банк \"Ü\" \u00e9 [[[ # {"`, `"sha256:`+digits+`"`), []Entry{{"00000001", `Банк "Ü" é [[[ # {`, "sha256:" + digits}}},
	} {
		l, err := parse([]byte(c.list), nil, now)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		if l.Len() != len(c.want) || l.Verified {
			t.Errorf("%s: %+v", c.name, l)
		}
		for _, want := range c.want {
			if got, ok := l.Lookup(want.ID); !ok || got != want {
				t.Errorf("%s: got %+v, %v, want %+v", c.name, got, ok, want)
			}
		}
	}
}

// A single mistake makes the whole list invalid. The error is that for the format,
// the version or an expired list, and it is short.
func TestParseRefuses(t *testing.T) {
	name, fp := `"A bank"`, `"sha256:`+digits+`"`
	for _, c := range []struct {
		name, list string
		want       error
	}{
		{"empty", "", errFormat},
		{"comments only", "# x\n", errFormat},
		{"no version", good("00000001"), errFormat},
		{"version last", good("00000001") + head, errFormat},
		{"version twice", head + head, errFormat},
		{"version as text", "version = \"1\"\n", errFormat},
		{"version as float", "version = 1.0\n", errFormat},
		{"later version", "version = 2\n", errVersion},
		{"huge version", "version = 99999999999999999999999\n", errVersion},
		{"later version with more in it", "version = 2\nfancy = { x = 1 }\n", errVersion},
		{"same ID twice", head + good("00000001") + good("00000001"), errFormat},
		{"unknown key", head + good("00000001") + "revoked = true\n", errFormat},
		{"ID above the entries", head + "id = \"00000001\"\n" + good("00000002"), errFormat},
		{"valid-until in an entry", head + good("00000001") + "valid-until = 2999-01-01T00:00:00Z\n", errFormat},
		{"unknown table", head + "[options]\n", errFormat},
		{"key in capitals", head + good("00000001") + "ID = \"00000002\"\n", errFormat},
		{"key twice", head + good("00000001") + "id = \"00000002\"\n", errFormat},
		{"key at the top", head + "id = \"00000001\"\n", errFormat},
		{"version of an authority", head + good("00000001") + "version = 1\n", errFormat},
		{"no ID", head + "[[authority]]\nname = " + name + "\nfingerprint = " + fp + "\n", errFormat},
		{"no name", head + "[[authority]]\nid = \"00000001\"\nfingerprint = " + fp + "\n", errFormat},
		{"no fingerprint", head + "[[authority]]\nid = \"00000001\"\nname = " + name + "\n", errFormat},
		{"ID as number", head + entry("12345678", name, fp), errFormat},
		{"ID in capitals", head + entry(`"ABCDEF00"`, name, fp), errFormat},
		{"ID too short", head + entry(`"1234567"`, name, fp), errFormat},
		{"an agent's ID", head + entry(`"`+digits[:32]+`"`, name, fp), errFormat},
		{"ID is no hex", head + entry(`"1234567g"`, name, fp), errFormat},
		{"empty name", head + entry(`"00000001"`, `""`, fp), errFormat},
		{"long name", head + entry(`"00000001"`, `"`+strings.Repeat("x", maxName+1)+`"`, fp), errFormat},
		{"name with an escape sequence", head + entry(`"00000001"`, `"\u001b[2J"`, fp), errFormat},
		{"name that runs backwards", head + entry(`"00000001"`, `"a\u202eb"`, fp), errFormat},
		{"name as a list", head + entry(`"00000001"`, `["x"]`, fp), errFormat},
		{"name over lines", head + entry(`"00000001"`, "\"\"\"a\nb\"\"\"", fp), errFormat},
		{"name not closed", head + entry(`"00000001"`, `"a`, fp), errFormat},
		{"name with more behind it", head + entry(`"00000001"`, `"a" "b"`, fp), errFormat},
		{"name not UTF-8", head + entry(`"00000001"`, "\"a\xff\"", fp), errFormat},
		{"fingerprint without prefix", head + entry(`"00000001"`, name, `"`+digits+`"`), errFormat},
		{"fingerprint too short", head + entry(`"00000001"`, name, `"sha256:`+digits[1:]+`"`), errFormat},
		{"fingerprint too long", head + entry(`"00000001"`, name, `"sha256:`+digits+`0"`), errFormat},
		{"fingerprint in capitals", head + entry(`"00000001"`, name, `"sha256:`+strings.ToUpper(digits)+`"`), errFormat},
		{"fingerprint of another kind", head + entry(`"00000001"`, name, `"sha1:`+digits[:40]+`"`), errFormat},
		{"valid-until without zone", head + "valid-until = 2027-01-01T00:00:00\n", errFormat},
		{"valid-until as date", head + "valid-until = 2027-01-01\n", errFormat},
		{"valid-until as text", head + "valid-until = \"2027-01-01T00:00:00Z\"\n", errFormat},
		{"valid-until that never comes", head + "valid-until = 2027-02-30T00:00:00Z\n", errFormat},
		{"expired", head + "valid-until = 2026-11-23T11:59:59Z\n" + good("00000001"), errExpired},
		{"expired elsewhere", head + "valid-until = 2026-11-23T13:59:59+02:00\n", errExpired},
		{"byte order mark", "\ufeff" + head, errFormat},
		{"NUL", head + "# \x00\n", errFormat},
		{"an HTML page", "<!DOCTYPE html>\n<html></html>\n", errFormat},
		{"long line", head + "#" + strings.Repeat("x", maxLine) + "\n", errFormat},
		{"too large", head + strings.Repeat("#\n", maxList/2), errFormat},
		{"too many", head + strings.Repeat("[[authority]]\n", maxEntries+1), errFormat},
		{"deep lists", head + "name = " + strings.Repeat("[", maxList/2), errFormat},
		{"deep lists on lines", head + strings.Repeat("name = [\n", maxList/16), errFormat},
		{"deep tables", head + strings.Repeat("{a=", 300) + "\n", errFormat},
		{"long key", head + strings.Repeat("a.", 400) + "a = 1\n", errFormat},
	} {
		start := costtest.Spent()
		l, err := parse([]byte(c.list), nil, now)
		if !errors.Is(err, c.want) || l != nil {
			t.Errorf("%s: got %+v, %v, want %v", c.name, l, err, c.want)
		} else if len(err.Error()) > 500 || strings.ContainsFunc(err.Error(), func(r rune) bool { return r < ' ' }) {
			t.Errorf("%s: an error of %d bytes: %.600q", c.name, len(err.Error()), err.Error())
		}
		// A general TOML parser takes minutes for some of these.
		if d := costtest.Spent() - start; d > 5*time.Second {
			t.Errorf("%s: took %v", c.name, d)
		}
	}
}

// With a key, a list is accepted only if all of its bytes are as the publisher has
// signed them.
func TestSignature(t *testing.T) {
	list := head + "valid-until = 2027-01-01T00:00:00Z\n" + good("00000001")
	b, err := sign([]byte(list), publisher)
	if err != nil {
		t.Fatal(err)
	}
	signed := string(b)
	line := signed[len(list):]
	for _, c := range []struct {
		name, list string
		key        ed25519.PublicKey
		want       error
	}{
		{"as signed", signed, publisherKey, nil},
		{"no line end at the end", strings.TrimSuffix(signed, "\n"), publisherKey, nil},
		{"no key given", signed, nil, nil},
		{"another key", signed, strangerKey, errSignature},
		{"empty key", signed, ed25519.PublicKey{}, errKey},
		{"not signed", list, publisherKey, errUnsigned},
		{"one letter", strings.Replace(signed, "A bank", "A tank", 1), publisherKey, errSignature},
		{"added above", good("00000002") + signed, publisherKey, errSignature},
		{"added below", signed + good("00000002"), publisherKey, errFormat},
		{"added below, no key given", signed + good("00000002"), nil, errFormat},
		{"empty line below", signed + "\n", publisherKey, errFormat},
		{"signed twice", signed + line, publisherKey, errFormat},
		{"line ends", strings.ReplaceAll(signed, "\n", "\r\n"), publisherKey, errSignature},
		{"cut off", signed[:len(signed)-10], publisherKey, errFormat},
		{"cut off, no key given", signed[:len(signed)-10], nil, errFormat},
		{"signature alone", line, publisherKey, errSignature},
		{"disguised", strings.Replace(signed, "# ed", "#  ed", 1), publisherKey, errUnsigned},
	} {
		l, err := parse([]byte(c.list), c.key, now)
		if !errors.Is(err, c.want) || (err == nil) != (l != nil) {
			t.Errorf("%s: got %v, want %v", c.name, err, c.want)
		}
		if l != nil && l.Verified != (c.key != nil) {
			t.Errorf("%s: Verified is %v", c.name, l.Verified)
		}
	}
	if _, err := parse(b, publisherKey, now.AddDate(1, 0, 0)); !errors.Is(err, errExpired) {
		t.Errorf("a good signature a year later: got %v, want %v", err, errExpired)
	}
	if again, err := sign(b, publisher); err != nil || string(again) != signed {
		t.Errorf("signing again: %q, %v", again, err)
	}
	if _, err := sign([]byte(list+good("00000001")), publisher); !errors.Is(err, errFormat) {
		t.Errorf("signing a list with a mistake: %v", err)
	}
}

// Check accepts the listed key of a node ID, and returns errMismatch for another key
// and ErrUnlisted for an unknown ID.
func TestCheck(t *testing.T) {
	newKey := func() crypto.PublicKey {
		k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		return k.Public()
	}
	right, wrong := newKey(), newKey()
	l, err := parse([]byte(head+entry(`"00000001"`, `"A bank"`, `"`+pki.Fingerprint(right)+`"`)), nil, now)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		id   string
		key  crypto.PublicKey
		want error
	}{
		{"00000001", right, nil}, {"00000001", wrong, errMismatch}, {"00000001", nil, errMismatch},
		{"00000002", right, ErrUnlisted}, {"", right, ErrUnlisted},
	} {
		if e, err := l.Check(c.id, c.key); !errors.Is(err, c.want) || (c.want == nil && e.Name != "A bank") {
			t.Errorf("%q: got %+v, %v, want %v", c.id, e, err, c.want)
		}
	}
}

// ParseFingerprint accepts a fingerprint in the forms in which people and programs
// write it, and nothing else, not even a text that is nearly a fingerprint.
func TestParseFingerprint(t *testing.T) {
	want := "sha256:" + digits
	pairs := regexp.MustCompile("..").ReplaceAllString(digits, "$0:")
	for _, s := range []string{
		want, digits, strings.ToUpper(want), " \t" + want + "\r\n", pairs, "SHA256:" + strings.ToUpper(pairs),
		"sha256: " + digits[:32] + "\n  " + digits[32:], strings.ReplaceAll(pairs, ":", "\u00a0"),
	} {
		if got, err := ParseFingerprint(s); err != nil || got != want {
			t.Errorf("%q: got %q, %v", s, got, err)
		}
	}
	for _, s := range []string{
		"", "sha256:", digits[1:], digits + "0", want + want, "sha256:sha256:" + digits, "sha1:" + digits[:40], "sha512:" + digits,
		"g" + digits[1:], "SHA256:AbCdEfGhIjKlMnOpQrStUvWxYz0123456789+/AbCdE", digits[:63] + "\x00", "\u0660" + digits[1:],
		"0x" + digits, digits[:32] + "-" + digits[32:], strings.Repeat(" ", maxTyped) + want,
	} {
		if got, err := ParseFingerprint(s); !errors.Is(err, errFingerprint) || got != "" {
			t.Errorf("%q: got %q, %v, want %v", s, got, err, errFingerprint)
		}
	}
}

// ParseKey accepts a public key in PEM and in base64, and nothing else, in
// particular no private key.
func TestParseKey(t *testing.T) {
	der, err := x509.MarshalPKIXPublicKey(publisherKey)
	if err != nil {
		t.Fatal(err)
	}
	block := func(typ string, der []byte) string {
		return string(pem.EncodeToMemory(&pem.Block{Type: typ, Bytes: der}))
	}
	b64 := base64.StdEncoding.EncodeToString(der)
	for _, s := range []string{b64, " " + b64 + "\n", block("PUBLIC KEY", der)} {
		if got, err := ParseKey(s); err != nil || !got.Equal(publisherKey) {
			t.Errorf("%q: got %x, %v", s, got, err)
		}
	}
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	ecDER, _ := x509.MarshalPKIXPublicKey(ec.Public())
	private, _ := x509.MarshalPKCS8PrivateKey(publisher)
	for _, s := range []string{
		"", "x", "-----BEGIN PUBLIC KEY-----", base64.StdEncoding.EncodeToString(publisherKey), block("PUBLIC KEY", ecDER),
		block("PRIVATE KEY", private), base64.StdEncoding.EncodeToString(private), block("PUBLIC KEY", der) + block("PUBLIC KEY", der), b64[1:],
	} {
		got, err := ParseKey(s)
		if !errors.Is(err, errKey) || got != nil {
			t.Errorf("%q: got %x, %v, want %v", s, got, err, errKey)
		} else if strings.Contains(err.Error(), base64.StdEncoding.EncodeToString(private[16:])) {
			t.Errorf("the error contains a private key: %v", err)
		}
	}
}

// The example in the documentation is a valid list, with a signature by the key
// below it.
func TestDocumentation(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "registry.md"))
	if err != nil {
		t.Fatal(err)
	}
	list := regexp.MustCompile("(?s)```toml\n(.*?)```").FindSubmatch(doc)
	keys := regexp.MustCompile("(?s)```\n(-----BEGIN PUBLIC KEY.*?END PUBLIC KEY-----\n)\n(.*?)\n```").FindSubmatch(doc)
	if list == nil || keys == nil {
		t.Fatal("the example is missing")
	}
	for _, text := range keys[1:] {
		key, err := ParseKey(string(text))
		if err != nil {
			t.Fatal(err)
		}
		l, err := parse(list[1], key, now)
		if err != nil {
			resigned, _ := sign(list[1], publisher)
			t.Fatalf("%v; if the example was changed on purpose, this is its signature:\n%s", err, resigned)
		}
		if e, ok := l.Lookup("1234e567"); !ok || e.Name != "Town of Example, currency office" || l.ValidUntil.IsZero() {
			t.Errorf("got %+v, %v", e, l)
		}
	}
}

// A publisher can sign a list with OpenSSL as the documentation describes.
func TestOpenSSL(t *testing.T) {
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("no openssl here: signing a list with it was not tested")
	}
	dir := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	run := func(args ...string) {
		t.Helper()
		if out, err := exec.Command(openssl, args...).CombinedOutput(); err != nil {
			t.Fatalf("openssl %q: %v: %s", args, err, out)
		}
	}
	list := []byte(head + good("00000001"))
	if err := os.WriteFile(path("list.toml"), list, 0o600); err != nil {
		t.Fatal(err)
	}
	run("genpkey", "-algorithm", "ed25519", "-out", path("publisher.key"))
	run("pkey", "-in", path("publisher.key"), "-pubout", "-out", path("publisher.pub"))
	run("pkeyutl", "-sign", "-rawin", "-inkey", path("publisher.key"), "-in", path("list.toml"), "-out", path("list.sig"))
	pub, err := os.ReadFile(path("publisher.pub"))
	if err != nil {
		t.Fatal(err)
	}
	sig, err := os.ReadFile(path("list.sig"))
	if err != nil {
		t.Fatal(err)
	}
	key, err := ParseKey(string(pub))
	if err != nil {
		t.Fatal(err)
	}
	signed := fmt.Appendf(list, "%s%s\n", signaturePrefix, base64.StdEncoding.EncodeToString(sig))
	if _, err := parse(signed, key, now); err != nil {
		t.Error(err)
	}
}

// For any bytes, parse returns one of the declared errors, or a list in which every
// entry is valid, at a bounded cost and without a panic. An accepted list can be
// signed and verified.
func FuzzParse(f *testing.F) {
	f.Add([]byte(head + good("00000001") + good("00000002")))
	f.Add([]byte(head + "valid-until = 2027-01-01T00:00:00Z\n"))
	f.Add([]byte("version = 2\n"))
	f.Add([]byte(head + signaturePrefix + base64.StdEncoding.EncodeToString(make([]byte, 64)) + "\n"))
	f.Add([]byte("version=1\r\n[[authority]] # x\r\nname=\"\\u00e9\"\r\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var l *List
		var err error
		costtest.Check(t, "a list", func() { l, err = parse(data, nil, now) })
		if err != nil {
			if !errors.Is(err, errFormat) && !errors.Is(err, errVersion) && !errors.Is(err, errExpired) {
				t.Fatalf("%q: %v", data, err)
			}
			return
		}
		for id, e := range l.entries {
			if err := e.check(); err != nil || e.ID != id {
				t.Fatalf("%q: %+v: %v", data, e, err)
			}
		}
		signed, err := sign(data, publisher)
		if err != nil {
			t.Fatalf("%q: sign: %v", data, err)
		}
		if got, err := parse(signed, publisherKey, now); err != nil || got.Len() != l.Len() {
			t.Fatalf("%q: verify: %v", signed, err)
		}
	})
}
