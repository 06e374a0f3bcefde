package cli

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// fullDisk is a writer that fails, as on a full disk.
type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errors.New("no space left on device") }

// A command whose output cannot be written fails, and its error contains the reason.
func TestOutputFails(t *testing.T) {
	t.Chdir(t.TempDir())
	bob := makeInputFiles(t)
	for _, line := range []string{
		"-C node", "-C node check", "-C node check --json", "-C node peer list", "-C node peer list --json", "-C node peer show " + bob, "bundle inspect bundle",
		"-C node bundle create new.zip --passphrase-file pass", "-C node request list", "version", "--help", "peer --help", "completion bash",
		"verify --trusted=node/root-ca.crt server.crt",
		"-C node peer register peer.crt", "-C node fulfil request new-answer --yes --json --passphrase-file pass",
	} {
		var stderr bytes.Buffer
		a := &app{stdin: os.Stdin, stdout: fullDisk{}, stderr: &stderr}
		code := a.run(t.Context(), strings.Fields(line))
		if code != exitFailed || !strings.Contains(stderr.String(), "no space left") {
			t.Errorf("peerlink %s: exit code %d\n%s", line, code, &stderr)
		}
	}
}

// Two names that refer to the same output file, on some file systems at least, are
// refused before anything is written.
func TestOutputsOfOneName(t *testing.T) {
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("folder", filepath.Join(dir, "link")); err != nil {
		t.Skip(err)
	}
	for _, names := range [][]string{{"t.key", "T.KEY"}, {"a", "./a"}, {"folder/a", "link/A"}, {"a", "folder/../a"}} {
		if err := checkCreatable(filepath.Join(dir, names[0]), dir+"/"+names[1]); err == nil || !strings.Contains(err.Error(), "two names") {
			t.Errorf("%q: error %v, want one about two names for output files", names, err)
		}
	}
	if err := checkCreatable(filepath.Join(dir, "a"), filepath.Join(dir, "folder", "a")); err != nil {
		t.Error(err)
	}
}

// The names of a request and of the files that "request file" writes for its answer must
// differ, too.
func TestRequestOutputsOfOneName(t *testing.T) {
	t.Chdir(t.TempDir())
	makeInputFiles(t)
	for _, args := range []string{"request new q.crt --csr q.csr", "request new r.json --csr b.csr --csr B.csr", "request new r.json --csr b.csr --bundle B.CRT"} {
		code, _, stderr := runCLI(t, strings.Fields("-C node "+args)...)
		if code != exitUsage || !strings.Contains(stderr, "two names") {
			t.Errorf("%s: exit code %d\n%s", args, code, stderr)
		}
	}
}

// The man pages are written into the folder itself, and never through symbolic links that
// another user has made in it.
func TestManFollowsNoSymlink(t *testing.T) {
	dir, victim := t.TempDir(), filepath.Join(t.TempDir(), "victim")
	if err := os.WriteFile(victim, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"peerlink.1", "peerlink-peer-sign.1"} {
		if err := os.Symlink(victim, filepath.Join(dir, name)); err != nil {
			t.Skip(err)
		}
	}
	for range 2 { // the second time, the pages exist already
		if code, _, stderr := runCLI(t, "man", dir); code != exitDone {
			t.Fatal(stderr)
		}
	}
	if data, err := os.ReadFile(victim); err != nil || string(data) != "precious" {
		t.Errorf("the target of the symbolic link has %.40q, error %v, want it unchanged", data, err)
	}
	for name, c := range leaves((&app{}).root()) {
		if c.IsAdditionalHelpTopicCommand() || !c.IsAvailableCommand() || name == "help" {
			continue
		}
		page := "peerlink-" + strings.ReplaceAll(name, " ", "-") + ".1"
		if name == "" {
			page = "peerlink.1"
		}
		if data, err := os.ReadFile(filepath.Join(dir, page)); err != nil || !slices.Contains(strings.Fields(string(data)), ".TH") {
			t.Errorf("%s: %.40q, %v", page, data, err)
		}
	}
}
