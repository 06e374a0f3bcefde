package node_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node/check"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// The private folder of a new node is not added to git with the rest of the directory, whether
// the directory is the work tree or in one, and whatever .gitignore files there are; what the
// operator has written there stays. Check says where a line for the folder is missing.
func TestPrivateFolderAndGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	for name, tt := range map[string]struct {
		node   string            // relative to the work tree
		before map[string]string // .gitignore files, by folder, before the node is made
		want   string            // content of the node's .gitignore
	}{
		"the directory":        {".", nil, "# The root key\nprivate/\n"},
		"below":                {"a/node", map[string]string{".": "private/\n"}, "# The root key\nprivate/\n"},
		"with another ignored": {".", map[string]string{".": "*.log"}, "*.log\n# The root key\nprivate/\n"},
		"ignored already":      {".", map[string]string{".": "*.log\r\n/private\r\n"}, "*.log\r\n/private\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tree := t.TempDir()
			git := func(args ...string) string {
				t.Helper()
				c := exec.Command("git", append([]string{"-C", tree, "-c", "core.excludesFile="}, args...)...)
				c.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=", "GIT_CONFIG_NOSYSTEM=1")
				out, err := c.CombinedOutput()
				if err != nil {
					t.Fatalf("git %q: %v\n%s", args, err, out)
				}
				return string(out)
			}
			for folder, content := range tt.before {
				write(t, content, tree, folder, ".gitignore")
			}
			key, err := pki.GenerateKey(pki.P256)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(tree, filepath.FromSlash(tt.node))
			n := nodetest.NewWithKey(t, dir, ca, "n.example.com:1", key)
			write(t, "", dir, "private", "root-ca.key")
			if got := read(t, dir, ".gitignore"); got != tt.want {
				t.Errorf(".gitignore is %q, want %q", got, tt.want)
			}
			severity := func(want check.Severity) {
				t.Helper()
				r, err := check.Run(ctx, n.Path(), check.Options{})
				if err != nil {
					t.Fatal(err)
				}
				var got check.Severity
				for _, f := range r.Findings {
					if f.Rule == check.RuleGit {
						got = f.Severity
					}
				}
				if got != want {
					t.Errorf("severity %v, want %v", got, want)
				}
			}
			severity(0)
			git("init", "-q")
			git("add", "-A")
			if listed := git("ls-files"); strings.Contains(listed, "private") || !strings.Contains(listed, "root-ca.crt") {
				t.Errorf("git has added %q", listed)
			}
			severity(0)
			remove(t, dir, ".gitignore")
			severity(check.Note)
		})
	}
}
