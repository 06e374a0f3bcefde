package guard

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// made creates a file or a folder with this mode, independent of the umask.
func made(t *testing.T, folder bool, mode os.FileMode) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "x")
	err := os.WriteFile(path, []byte("secret\n"), 0o600)
	if folder {
		os.Remove(path)
		err = os.Mkdir(path, 0o700)
	}
	if err == nil {
		err = os.Chmod(path, mode)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// A folder in which every user can replace files is refused.
func TestCheckFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	for mode, good := range map[os.FileMode]bool{0o700: true, 0o755: true, 0o750: true, 0o777: false, 0o702: false, 0o777 | os.ModeSticky: false} {
		path := made(t, true, mode)
		if err := CheckFolder(path); (err == nil) != good {
			t.Errorf("mode %v: %v", mode, err)
		} else if err != nil && !strings.Contains(err.Error(), "chmod 700 "+path) {
			t.Errorf("error %q names no way out", err)
		}
	}
}

// A passphrase file that every user can change is refused; for one that others can read
// there is a warning.
func TestCheckSecretFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	for mode, want := range map[os.FileMode]string{0o600: "", 0o400: "", 0o644: "warning", 0o640: "warning", 0o666: "error", 0o602: "error"} {
		path := made(t, false, mode)
		warning, err := CheckSecretFile(path)
		got := ""
		switch {
		case err != nil:
			got = "error"
			warning = err.Error()
		case warning != "":
			got = "warning"
		}
		if got != want || got != "" && !strings.Contains(warning, "chmod 600") {
			t.Errorf("mode %v: %v, %q, %v", mode, got, warning, err)
		}
	}
}

// Files of other users are refused; for root by means of sudo, files of the calling user
// are not.
func TestCheckOwner(t *testing.T) {
	path := made(t, false, 0o600)
	if err := CheckOwner(path); err != nil {
		t.Errorf("our own: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away: skipped in part")
	}
	if err := os.Chown(path, 65534, -1); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "")
	if err := CheckOwner(path); err == nil || !strings.Contains(err.Error(), "65534") {
		t.Errorf("somebody else's: %v", err)
	}
	if _, err := CheckSecretFile(path); err == nil {
		t.Error("somebody else's passphrase file is accepted")
	}
	t.Setenv("SUDO_UID", "65534")
	if err := CheckOwner(path); err != nil {
		t.Errorf("by sudo: %v", err)
	}
}

// The warning about a passphrase file says whether others can change it.
func TestSecretFileOfGroup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	for mode, want := range map[os.FileMode]string{0o640: "can be read by", 0o660: "can be read or changed by"} {
		if warning, err := CheckSecretFile(made(t, false, mode)); err != nil || !strings.Contains(warning, want) {
			t.Errorf("mode %v: %q, %v", mode, warning, err)
		}
	}
}

// A secret in a folder where every user can replace it is detected, except if the sticky
// bit prevents that.
func TestCheckBeside(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	for mode, good := range map[os.FileMode]bool{0o700: true, 0o755: true, 0o777: false, 0o777 | os.ModeSticky: true} {
		folder := made(t, true, mode)
		if err := CheckBeside(filepath.Join(folder, "key")); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "chmod o-w "+folder) {
			t.Errorf("mode %v: %v", mode, err)
		}
		if fi, err := os.Stat(folder); err != nil || fi.Mode().Perm() != mode.Perm() || fi.Mode()&os.ModeSticky != mode&os.ModeSticky {
			t.Errorf("mode %v became %v, %v", mode, fi.Mode(), err)
		}
	}
}

// A folder of this user in which its group can replace files is detected.
func TestOpenToGroup(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	for mode, want := range map[os.FileMode]bool{0o700: false, 0o750: false, 0o770: true, 0o770 | os.ModeSticky: false} {
		if got := OpenToGroup(made(t, true, mode)); got != want {
			t.Errorf("mode %v: %v, expected %v", mode, got, want)
		}
	}
}

// Root does not write into folders of other users, nor through their symbolic links; other
// users are not affected.
func TestCheckRootWrites(t *testing.T) {
	if os.Geteuid() != 0 {
		if err := CheckSuperuserWrites(os.TempDir()); err != nil {
			t.Error(err)
		}
		t.Skip("only root can give files away: skipped in part")
	}
	own, theirs := made(t, true, 0o755), made(t, true, 0o755)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{theirs, link} {
		if err := os.Lchown(path, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckSuperuserWrites(own, own+"/missing"); err != nil {
		t.Error(err)
	}
	for _, path := range []string{theirs, link} {
		if err := CheckSuperuserWrites(own, path); err == nil || !strings.Contains(err.Error(), "sudo -u ") || !strings.Contains(err.Error(), path) {
			t.Errorf("%v: expected an error that names %s and a way out", err, path)
		}
	}
}
