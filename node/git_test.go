package node_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node"
	"peerlink/node/check"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// The private folder of a new node is not added to git with the rest of the directory, whether
// the directory is the work tree or in one, and check says so where it is not ignored, or was
// added. Git decides what is right.
func TestPrivateFolderAndGit(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("git is not installed")
	}
	for name, tt := range map[string]struct {
		node    string // relative to the work tree
		ignored string // content of the work tree's .gitignore before the node is made
		wrote   bool   // the node has its own
	}{
		"the directory":               {".", "", true},
		"below":                       {"a/node", "", true},
		"below, ignored":              {"a/node", "*.log\nprivate/\n", false},
		"below, ignored by path":      {"a/node", "/a/node/private\n", false},
		"below, ignored by key":       {"a/node", "*.key\n", false},
		"below, all ignored":          {"a/node", "a/node/**\n", false},
		"below, the folder ignored":   {"a/node", "**/node/\n", false},
		"below, ignored in the top":   {"a/node", "/private/\n", true},
		"the directory, other ignore": {".", "*.log\n", false},
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
			git("init", "-q")
			if tt.ignored != "" {
				write(t, tt.ignored, tree, ".gitignore")
			}
			key, err := pki.GenerateKey(pki.P256)
			if err != nil {
				t.Fatal(err)
			}
			dir := filepath.Join(tree, filepath.FromSlash(tt.node))
			n := nodetest.NewWithKey(t, dir, ca, "n.example.com:1", key)
			write(t, "", dir, "private", "root-ca.key")
			if _, err := os.Stat(filepath.Join(dir, ".gitignore")); tt.node != "." && tt.wrote != (err == nil) {
				t.Errorf("the node has a .gitignore: %v, want %v", err == nil, tt.wrote)
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
			git("add", "-A")
			listed := strings.Contains(git("ls-files"), "private")
			if state, ok := node.ReadGitState(dir); !ok || state.Tracked != listed {
				t.Errorf("state %+v, %v; tracked: %v", state, ok, listed)
			}
			if wrong := name == "the directory, other ignore"; listed != wrong { // a file of the operator is left alone
				t.Fatalf("tracked: %v", listed)
			}
			if listed {
				severity(check.Warning)
				git("rm", "-q", "-r", "--cached", ".")
				severity(check.Note)
				write(t, "private/\n", tree, ".git", "info", "exclude")
			}
			severity(0)
			write(t, "x", tree, "x", "private", "x") // of somebody else
			git("add", "-f", "x/private/x")
			severity(0)
			git("add", "-f", filepath.Join(dir, "private", "root-ca.key"))
			severity(check.Warning)
		})
	}
}
