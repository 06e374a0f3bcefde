package durable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
)

// left returns the names of the files in the folder, to check that no temporary file
// is left.
func left(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return strings.Join(names, " ")
}

// A file is replaced as a whole or not at all, and no other file appears.
func TestReplace(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	for _, content := range []string{"old", "new, and longer", ""} {
		if err := Replace(path, []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
		if got, err := Read(path, 100); err != nil || string(got) != content {
			t.Errorf("got %q, %v", got, err)
		}
	}
	refused := errors.New("refused")
	if err := ReplaceChecked(path, []byte("bad"), 0o600, func(b []byte) error {
		if string(b) != "bad" {
			t.Errorf("checked %q", b)
		}
		return refused
	}); !errors.Is(err, refused) {
		t.Errorf("error is %v", err)
	}
	if got, err := Read(path, 100); err != nil || len(got) != 0 || left(t, dir) != "f" {
		t.Errorf("after a refusal: %q, %v, folder has %q", got, err, left(t, dir))
	}
}

// createWithoutLinks is Create on a file system that has no hard links.
func createWithoutLinks(path string, data []byte, mode fs.FileMode) error {
	tmp, err := writeTemp(path, data, mode, nil, nil)
	if err == nil {
		err = moveNew(tmp, path)
		os.Remove(tmp)
	}
	return err
}

// A replacement through a symbolic link replaces the target, in its own folder: no copy of
// the old content is left there, and no copy of the new one is created beside the link.
func TestReplaceThroughLink(t *testing.T) {
	disk, usb := t.TempDir(), t.TempDir()
	file, link, second := filepath.Join(usb, "key"), filepath.Join(disk, "key"), filepath.Join(disk, "second")
	if err := os.WriteFile(file, []byte("old"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.Symlink(file, link), os.Symlink("key", second)); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	for content, replace := range map[string]func(string, []byte) error{
		"new": func(path string, data []byte) error { return Replace(path, data, 0o600) },
		"checked": func(path string, data []byte) error {
			return ReplaceChecked(path, data, 0o600, func([]byte) error { return nil })
		},
	} {
		if err := replace(second, []byte(content)); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(file); err != nil || string(got) != content {
			t.Errorf("the link's target has %q, %v, want %q", got, err, content)
		}
		if fi, err := os.Lstat(link); err != nil || fi.Mode()&fs.ModeSymlink == 0 {
			t.Errorf("the link is %v, %v", fi, err)
		}
		if left(t, disk) != "key second" || left(t, usb) != "key" {
			t.Errorf("folders have %q and %q", left(t, disk), left(t, usb))
		}
	}
	// A dangling link, such as one to a USB stick that is not connected, is not replaced.
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	if err := Replace(link, []byte("x"), 0o600); err == nil || errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), file) {
		t.Errorf("dangling link: got error %v, want one that names %s", err, file)
	}
	if err := Create(link, []byte("x"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("create at a link: %v", err)
	}
	if left(t, disk) != "key second" || left(t, usb) != "" {
		t.Errorf("folders have %q and %q", left(t, disk), left(t, usb))
	}
}

// A new file that its check refuses never gets its name.
func TestCreateChecked(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	refused := errors.New("refused")
	if err := CreateChecked(path, []byte("bad"), 0o600, func(b []byte) error {
		if string(b) != "bad" {
			t.Errorf("checked %q", b)
		}
		return refused
	}); !errors.Is(err, refused) || left(t, dir) != "" {
		t.Errorf("error is %v, folder has %q", err, left(t, dir))
	}
	if err := CreateChecked(path, []byte("good"), 0o600, func([]byte) error { return nil }); err != nil || left(t, dir) != "f" {
		t.Errorf("error is %v, folder has %q", err, left(t, dir))
	}
}

// Of many concurrent calls of Create, exactly one succeeds.
func TestCreateRace(t *testing.T) {
	for name, create := range map[string]func(string, []byte, fs.FileMode) error{"with links": Create, "without": createWithoutLinks} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			var created atomic.Int32
			done := make(chan error, 8)
			for range cap(done) {
				go func() {
					err := create(filepath.Join(dir, "f"), []byte("x"), 0o600)
					if err == nil {
						created.Add(1)
					} else if errors.Is(err, fs.ErrExist) {
						err = nil
					}
					done <- err
				}()
			}
			for range cap(done) {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			if created.Load() != 1 || left(t, dir) != "f" {
				t.Errorf("created %d times, folder has %q", created.Load(), left(t, dir))
			}
		})
	}
}

// A file that is too large or not regular is not read.
func TestReadRefuses(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "f")
	if err := os.WriteFile(path, []byte("12345"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Read(path, 4); err == nil {
		t.Error("Read has read a file of 5 bytes with the limit 4")
	}
	if _, err := Read(dir, 4); err == nil {
		t.Error("Read has read a folder")
	}
	if _, err := Read(path+"x", 4); !errors.Is(err, fs.ErrNotExist) {
		t.Error(err)
	}
}

// An error about a symbolic link names it, also for a link to itself.
func TestLinkToItself(t *testing.T) {
	link := filepath.Join(t.TempDir(), "key")
	if err := os.Symlink("key", link); err != nil {
		t.Skipf("no symbolic links here: %v", err)
	}
	if _, err := Target(link); err == nil || !strings.Contains(err.Error(), link) || errors.Is(err, fs.ErrNotExist) {
		t.Errorf("error is %v", err)
	}
}
