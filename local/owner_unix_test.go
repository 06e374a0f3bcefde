//go:build unix

package local

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

// A passcode file that another user has put into the state folder is refused, by the
// door and by its client. One of the folder's owner is accepted.
func TestPasscodeOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can give files away")
	}
	t.Setenv("SUDO_UID", "")
	const other = 65534
	dir := stateDir(t)
	path := filepath.Join(dir, passcodeFile)
	if err := errors.Join(os.WriteFile(path, []byte("correct-horse-battery"), 0o600), os.Chown(path, other, -1)); err != nil {
		t.Fatal(err)
	}
	for _, listen := range []string{"none", "127.0.0.1:0"} {
		if _, err := openOnly(t, dir, listen); !errors.Is(err, errExposed) {
			t.Errorf("Open with %s: %v, expected %v", listen, err, errExposed)
		}
	}
	if err := writeAddresses(dir, addresses{Unix: socketFile}); err != nil {
		t.Fatal(err)
	}
	if _, err := Dial(t.Context(), dir); !errors.Is(err, errExposed) {
		t.Errorf("Dial: %v, expected %v", err, errExposed)
	}
	if err := os.Chown(dir, other, -1); err != nil {
		t.Fatal(err)
	}
	if _, err := openOnly(t, dir, "none"); err != nil {
		t.Errorf("a passcode of the folder's owner: %v", err)
	}
}
