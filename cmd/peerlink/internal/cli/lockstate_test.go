package cli

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
)

// A second service is refused, also when the lock's file was removed under the first.
func TestLockState(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); err == nil {
		t.Error("locked twice")
	}
	if runtime.GOOS == "linux" {
		if err := os.Remove(filepath.Join(dir, "serve.lock")); err != nil {
			t.Fatal(err)
		}
		if _, err := lockState(dir); err == nil {
			t.Error("locked twice, after its file was removed")
		}
	}
	unlock()
	unlock, err = lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	unlock()
}
