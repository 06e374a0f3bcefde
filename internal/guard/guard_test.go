package guard

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// A key file is refused if other users than its owner may read or write it.
func TestCheckKeyFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	path := filepath.Join(t.TempDir(), "key")
	if err := os.WriteFile(path, []byte("key"), 0o600); err != nil {
		t.Fatal(err)
	}
	for mode, good := range map[os.FileMode]bool{0o600: true, 0o400: true, 0o640: false, 0o604: false, 0o620: false, 0o644: false} {
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		if err := CheckKeyFile(path); (err == nil) != good {
			t.Errorf("mode %v: %v", mode, err)
		} else if err != nil && !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("got error %q, want one with the remedy \"chmod 600\"", err)
		}
	}
	if CheckKeyFile(path+"x") == nil {
		t.Error("a missing file is accepted")
	}
}
