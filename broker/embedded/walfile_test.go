package embedded

import (
	"bytes"
	"errors"
	"os"
	"regexp"
	"strconv"
	"testing"
)

// After a service was killed, a write-ahead log that was damaged or cut short since is not
// taken for a log that ends there: SQLite would open the store without the messages behind the
// damage. The file messages.db-last shows that transactions are missing at the end, until
// the system is started again; damage with later transactions behind it is always detected.
// The error says how to go on without them. What a power failure may leave, a last transaction
// that was not written completely, is no damage.
func TestDamagedLog(t *testing.T) {
	if bootID() == "" {
		t.Skip("skipped: a write-ahead log that was cut short (the system has no boot ID)")
	}
	s := openTest(t, Options{Service: true})
	declareTest(t, s, "q")
	for _, body := range numbers(40) {
		putBodies(t, s, "q", body)
	}
	middle := func(log []byte) int { return len(log) / 2 }
	for _, tt := range []struct {
		name   string
		damage func(log []byte) []byte
		// The errors with and without messages.db-last.
		with, without error
	}{
		{"none", func(log []byte) []byte { return log }, nil, nil},
		{"a byte in the middle", func(log []byte) []byte { log[middle(log)] ^= 0xff; return log }, errDamaged, errDamaged},
		{"zeros in the middle", func(log []byte) []byte { clear(log[middle(log):][:2*pageSize]); return log }, errDamaged, errDamaged},
		{"cut in the middle", func(log []byte) []byte { return log[:middle(log)] }, errMixed, nil},
		{"empty", func([]byte) []byte { return nil }, errMixed, nil},
		{"zeros at the beginning", func(log []byte) []byte { clear(log[:4096]); return log }, errDamaged, errDamaged},
		{"all zeros", func(log []byte) []byte { clear(log); return log }, errDamaged, errDamaged},
		{"a byte at the end", func(log []byte) []byte { log[len(log)-1] ^= 0xff; return log }, nil, nil},
	} {
		for _, recorded := range []bool{true, false} {
			path, want := killed(t, s), tt.with
			if !recorded {
				want = tt.without
				if err := os.Remove(path + lastTokenSuffix); err != nil {
					t.Fatal(err)
				}
			}
			log, err := os.ReadFile(path + "-wal")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path+"-wal", tt.damage(bytes.Clone(log)), 0o600); err != nil {
				t.Fatal(err)
			}
			after, err := Open(path, Options{Service: true})
			if !errors.Is(err, want) {
				t.Errorf("%s, with messages.db-last: %v: got %v, want %v", tt.name, recorded, err, want)
			}
			if err != nil {
				followLogAdvice(t, path, err)
				if after, err = Open(path, Options{Service: true}); err != nil {
					t.Errorf("%s: after what the error advises: %v", tt.name, err)
					continue
				}
			}
			if err := after.Close(); err != nil {
				t.Error(err)
			}
		}
	}
}

// followLogAdvice does what an error about a damaged log advises to go on without the last
// messages.
func followLogAdvice(t *testing.T, path string, advice error) {
	t.Helper()
	if m := regexp.MustCompile(`truncate -s (\d+) `).FindStringSubmatch(advice.Error()); m != nil {
		n, _ := strconv.ParseInt(m[1], 10, 64)
		if err := os.Truncate(path+"-wal", n); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(path + lastTokenSuffix); err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
}
