package node

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"
)

// The stamp of a replaced file differs, even if the new file has the size and the modification time of
// the old one, as after rsync, or in a package store without times. The stamp of an unchanged file is
// the same.
func TestStampFile(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("no change times here: replacing a file by one of the same size and time is not detected")
	}
	dir := t.TempDir()
	epoch := time.Unix(1, 0)
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, epoch, epoch); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(to string) {
		next := filepath.Join(dir, "next")
		if err := os.Symlink(to, next); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(next, filepath.Join(dir, "data")); err != nil {
			t.Fatal(err)
		}
	}
	path := filepath.Join(dir, "data", "file")
	if StampFile(path) != (FileStamp{}) {
		t.Error("an absent file has a stamp")
	}
	write("1/file", "one")
	link("1")
	last := StampFile(path)
	if last == (FileStamp{}) || StampFile(path) != last {
		t.Error("the stamp of the same file differs")
	}
	// The kernel's clock for files ticks every few milliseconds.
	for _, step := range []struct {
		name   string
		change func()
	}{
		{"another folder", func() { write("2/file", "two"); link("2") }},
		{"another file in its place", func() { os.Rename(write("3/file", "333"), filepath.Join(dir, "2", "file")) }},
		{"written again", func() { write("2/file", "444") }},
	} {
		deadline := time.Now().Add(10 * time.Second)
		for step.change(); StampFile(path) == last; step.change() {
			if time.Now().After(deadline) {
				t.Fatalf("%s is not detected", step.name)
			}
		}
		last = StampFile(path)
	}
}
