package guard

import (
	"errors"
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
			t.Errorf("got error %q, want one with the remedy \"chmod 700\"", err)
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

// CheckOwner refuses files of other users, except for root under sudo, which may use the
// files of the user who has called sudo.
func TestCheckOwner(t *testing.T) {
	path := made(t, false, 0o600)
	if err := CheckOwner(path); err != nil {
		t.Errorf("own file: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away: skipped in part")
	}
	if err := os.Chown(path, 65534, -1); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SUDO_UID", "")
	if err := CheckOwner(path); err == nil || !strings.Contains(err.Error(), "65534") {
		t.Errorf("another user's file: got error %v, want one that names the user", err)
	}
	if _, err := CheckSecretFile(path); err == nil {
		t.Error("another user's passphrase file is accepted")
	}
	t.Setenv("SUDO_UID", "65534")
	if err := CheckOwner(path); err != nil {
		t.Errorf("file of the user who has called sudo: %v", err)
	}
}

// The warning about a passphrase file distinguishes whether other users can change
// it or only read it.
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
func TestCheckParentFolder(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	for mode, good := range map[os.FileMode]bool{0o700: true, 0o755: true, 0o777: false, 0o777 | os.ModeSticky: true} {
		folder := made(t, true, mode)
		if err := CheckParentFolder(filepath.Join(folder, "key")); (err == nil) != good || err != nil && !strings.Contains(err.Error(), "chmod o-w "+folder) {
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
func TestCheckSuperuserWrites(t *testing.T) {
	if os.Geteuid() != 0 {
		if err := CheckSuperuserWrites(os.TempDir()); err != nil {
			t.Error(err)
		}
		t.Skip("only root can give files away: skipped in part")
	}
	own, theirs := made(t, true, 0o755), made(t, true, 0o755)
	link, below := filepath.Join(t.TempDir(), "link"), filepath.Join(theirs, "below")
	if err := os.Symlink(own, link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(below, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{theirs, link} {
		if err := os.Lchown(path, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := CheckSuperuserWrites(own, own+"/missing/too"); err != nil {
		t.Error(err)
	}
	// A relative link of root that leads to the other user's folder from its real location, and
	// elsewhere from the location in the path alias.
	deep := filepath.Join(filepath.Dir(theirs), "deep", "deeper")
	if err := os.MkdirAll(deep, 0o755); err != nil {
		t.Fatal(err)
	}
	relative, alias := filepath.Join(deep, "relative"), filepath.Join(t.TempDir(), "alias")
	for link, to := range map[string]string{relative: "../../" + filepath.Base(theirs), alias: deep} {
		if err := os.Symlink(to, link); err != nil {
			t.Fatal(err)
		}
	}
	through := filepath.Join(t.TempDir(), "through") // a link of root that leads through the other user's folder
	if err := os.Symlink(below, through); err != nil {
		t.Fatal(err)
	}
	for path, named := range map[string]string{theirs: theirs, link: link, below: theirs, link + "/x": link, through: theirs, through + "/new": theirs, alias + "/relative": theirs} {
		err := CheckSuperuserWrites(own, path)
		if !errors.Is(err, ErrUnsafeForSuperuser) || !strings.Contains(err.Error(), "sudo -u ") || !strings.Contains(err.Error(), named) {
			t.Errorf("%s: got %v, want an error that names %s and a remedy", path, err, named)
		}
	}
}

// Root does not write where a group, or every user, can replace files.
func TestCheckSuperuserShares(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can give files away: skipped")
	}
	for _, tt := range []struct {
		mode os.FileMode
		gid  int
		good bool
	}{{0o755, 65534, true}, {0o775, 0, true}, {0o775, 65534, false}, {0o757, 0, false}, {0o700, 0, true}} {
		path := made(t, true, tt.mode)
		if err := os.Chown(path, 0, tt.gid); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := CheckSuperuserShares(filepath.Join(path, "below")); (err == nil) != tt.good {
			t.Errorf("below mode %v of group %d: %v", tt.mode, tt.gid, err)
		}
		if err := CheckSuperuserShares(path); (err == nil) != tt.good || err != nil && !strings.Contains(err.Error(), "chmod go-w "+path) {
			t.Errorf("mode %v of group %d: %v", tt.mode, tt.gid, err)
		}
	}
}

// On a medium without modes, where chmod does nothing, the remedy is a mount option, and not chmod: for root
// in a folder that others can write to, and for everybody before a folder is made in one.
func TestOpenMedium(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("Windows has no file modes: skipped")
	}
	canRestrict = func(string, os.FileMode) bool { return false }
	t.Cleanup(func() { canRestrict = CanRestrict })
	stick := made(t, true, 0o777)
	checks := map[string]func() error{"new": func() error { return CheckNewFolder(filepath.Join(stick, "a", "b")) }}
	if os.Geteuid() == 0 {
		checks["root"] = func() error { return CheckSuperuserShares(filepath.Join(stick, "a")) }
	}
	for name, check := range checks {
		if err := check(); err == nil || !strings.Contains(err.Error(), stick+" is on a medium") || !strings.Contains(err.Error(), "umask=077") || strings.Contains(err.Error(), "chmod") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, mode := range []os.FileMode{0o755, 0o777 | os.ModeSticky} {
		if err := CheckNewFolder(filepath.Join(made(t, true, mode), "a")); err != nil {
			t.Errorf("mode %v: %v", mode, err)
		}
	}
}

// For root, CanRestrict does not change the modes of files in a folder of another user, who
// could replace them by files of root meanwhile, and not the modes of another user's files.
func TestModesOfOthers(t *testing.T) {
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("only root on Linux: skipped")
	}
	theirs := made(t, true, 0o755)
	inside := filepath.Join(theirs, "file")
	if err := os.WriteFile(inside, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	file := made(t, false, 0o644)
	for path, owner := range map[string]int{theirs: 65534, file: 65534} {
		if err := os.Chown(path, owner, -1); err != nil {
			t.Fatal(err)
		}
	}
	own := made(t, false, 0o644)
	for path, wantChange := range map[string]bool{inside: false, file: false, own: true} {
		before, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		if !CanRestrict(path, 0o044) {
			t.Errorf("%s: modes have no effect", path)
		}
		after, err := os.Stat(path)
		if err != nil {
			t.Fatal(err)
		}
		// Each chmod changes the time of the inode's last change.
		if changed := changeTime(before) != changeTime(after); changed != wantChange || after.Mode() != before.Mode() {
			t.Errorf("%s: mode changed temporarily: %v, want %v; mode %v, before %v", path, changed, wantChange, after.Mode(), before.Mode())
		}
	}
}
