package keyshare

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base32"
	"encoding/binary"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/crypto/chacha20poly1305"
	"golang.org/x/crypto/scrypt"
)

// goldenFiles returns the files with golden shares, which were made by the first
// version of this package. Of each split, one share is typed with the sealed key;
// the others have only their own lines, or are scanned.
func goldenFiles(t testing.TB, pattern string) []string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join("testdata", pattern))
	check(t, err)
	if len(names) == 0 {
		t.Fatalf("no golden files %s", pattern)
	}
	return names
}

func readFile(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(name)
	check(t, err)
	return data
}

// golden returns the texts of the shares of a split, and the public key.
func golden(t testing.TB, name string) (texts []string, pub crypto.PublicKey) {
	t.Helper()
	for _, file := range goldenFiles(t, name+".*.txt") {
		texts = append(texts, string(readFile(t, file)))
	}
	block, _ := pem.Decode(readFile(t, filepath.Join("testdata", name+".pub.pem")))
	pub, err := x509.ParsePKIXPublicKey(block.Bytes)
	check(t, err)
	return texts, pub
}

// goldenShare returns the share of a split that is typed with the sealed key.
func goldenShare(t testing.TB, name string) *Share {
	t.Helper()
	texts, _ := golden(t, name)
	share, err := Parse(texts[0])
	check(t, err)
	return share
}

var goldenNames = []string{"rsa3072-3-of-5", "p256-2-of-3"}

// Shares that were printed by earlier versions still restore the key.
func TestGolden(t *testing.T) {
	for _, name := range goldenNames {
		texts, pub := golden(t, name)
		var shares []*Share
		for _, text := range texts {
			s, err := Parse(text)
			check(t, err)
			if again := s.Text(); s.HasSealedKey() && !strings.Contains(text, qrPrefix) && again != text {
				t.Errorf("%s: %v is now printed as\n%s", name, s, again)
			}
			shares = append(shares, s)
		}
		sealed, err := Combine(shares)
		check(t, err)
		key, err := sealed.Open([]byte(testPass), pub)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !key.Public().(interface{ Equal(crypto.PublicKey) bool }).Equal(pub) {
			t.Errorf("%s: got another key", name)
		}
	}
}

// The package comment is sufficient to restore a key: this test implements its
// description, and uses only the word list of the package.
func TestPackageComment(t *testing.T) {
	order, _ := new(big.Int).SetString("27742317777372353535851937790883648493", 10)
	order.Add(order, new(big.Int).Lsh(big.NewInt(1), 252))
	for _, name := range goldenNames {
		texts, pub := golden(t, name)
		var sealed []byte
		points := make(map[int64]*big.Int)
		for _, text := range texts {
			data := decodeAsDescribed(t, text)
			if data[0] != 1 || int(data[1]) != len(texts) {
				t.Fatalf("%s: version %d, threshold %d", name, data[0], data[1])
			}
			little := slices.Clone(data[18:50])
			slices.Reverse(little)
			points[int64(data[3])] = new(big.Int).SetBytes(little)
			if data = data[50:]; len(data) == 0 {
				continue
			}
			sealed = data[:28+8*int(data[24])+int(binary.BigEndian.Uint16(data[26:]))]
		}
		secret := new(big.Int)
		for i, value := range points {
			term := new(big.Int).Set(value)
			for j := range points {
				if i != j {
					term.Mul(term, big.NewInt(j))
					term.Mul(term, new(big.Int).ModInverse(big.NewInt(j-i), order))
				}
			}
			secret.Add(secret, term)
		}
		salt := secret.Mod(secret, order).FillBytes(make([]byte, 32))
		slices.Reverse(salt)
		key, err := scrypt.Key([]byte(testPass), salt, 1<<sealed[25], 8, 1, 32)
		check(t, err)
		aead, err := chacha20poly1305.New(key)
		check(t, err)
		at := 28 + 8*int(sealed[24])
		compact, err := aead.Open(nil, make([]byte, 12), sealed[at:], sealed[:at])
		check(t, err)
		switch pub := pub.(type) {
		case *rsa.PublicKey:
			p := new(big.Int).SetBytes(compact)
			if !p.ProbablyPrime(20) || new(big.Int).Mod(pub.N, p).Sign() != 0 {
				t.Errorf("%s: not a prime of the key", name)
			}
		case *ecdsa.PublicKey:
			key, err := ecdsa.ParseRawPrivateKey(pub.Curve, compact)
			check(t, err)
			if !key.PublicKey.Equal(pub) {
				t.Errorf("%s: not the scalar of the key", name)
			}
		}
		spki, err := x509.MarshalPKIXPublicKey(pub)
		check(t, err)
		if sum := sha256.Sum256(spki); !bytes.Equal(sealed[5:21], sum[:16]) {
			t.Errorf("%s: fingerprint %x, want %x", name, sealed[5:21], sum[:16])
		}
	}
}

// decodeAsDescribed decodes one share, without checking it.
func decodeAsDescribed(t testing.TB, text string) []byte {
	if _, scanned, ok := strings.Cut(text, "PEERLINK-SHARE-1:"); ok {
		data, err := base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(strings.TrimSpace(scanned))
		check(t, err)
		return data[:len(data)-4]
	}
	var data []byte
	for line := range strings.Lines(text) {
		words := strings.Fields(line)
		if len(words) != 9 || words[0][0] > '9' {
			continue
		}
		number := new(big.Int)
		for _, w := range words[1:] {
			number.Lsh(number, 12)
			number.Or(number, big.NewInt(int64(slices.Index(wordList(), w))))
		}
		data = append(data, number.FillBytes(make([]byte, 12))[:10]...)
	}
	return data
}
