package cli

import (
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// Every command and every flag with a value is known to the completion, or is known to take a file or a
// text of the operator: a new one has to be added somewhere.
func TestCompletionIsComplete(t *testing.T) {
	files := []string{
		"fulfil", "key join", "key drill", "man", "message check", "request file", "request new",
		"server-cert issue", "server-cert request", "state backup", "state restore", "swpt-client", "swpt-drainer", "configure-queue", "help",
	}
	all := leaves((&app{}).root())
	for name, c := range all {
		known := argumentCompleters[name] != nil || argumentExtensions[name] != nil || c.ValidArgsFunction != nil
		if known == slices.Contains(files, name) && name != "" && name != "help" {
			t.Errorf("%q: completed %v", name, known)
		}
	}
	for _, names := range [][]string{keysOf(argumentCompleters), keysOf(argumentExtensions)} {
		for _, name := range names {
			if all[name] == nil {
				t.Errorf("%q is not a command", name)
			}
		}
	}
	flags := make(map[string]bool)
	for _, c := range all {
		c.Flags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
		c.InheritedFlags().VisitAll(func(f *pflag.Flag) { flags[f.Name] = true })
	}
	for _, name := range append(keysOf(flagCompleters), folderFlags...) {
		if !flags[name] {
			t.Errorf("--%s is not a flag", name)
		}
	}
}

func keysOf[V any](m map[string]V) (keys []string) {
	for key := range m {
		keys = append(keys, key)
	}
	return keys
}

// What the completion offers for a flag or an argument with fixed values, the command accepts.
func TestCompletedValuesAreValid(t *testing.T) {
	for _, line := range []string{
		"init --key-type=%key-type", "serve --log-level=%log-level", "serve --log-format=%log-format", "serve --queue-type=%queue-type --broker=amqp://127.0.0.1:1",
		"version --color=%color", "message check --peer=1234abcd --type=AccountPurge --direction=%direction", "verify --trusted=x --purpose=%purpose x",
	} {
		before, after, _ := strings.Cut(line, "%")
		flag, after, _ := strings.Cut(after, " ")
		for _, value := range flagCompleters[flag](nil, nil, nil) {
			args := strings.Fields(before + value + " " + after)
			if code, _, stderr := runCLI(t, append([]string{"-C", t.TempDir()}, args...)...); strings.Contains(stderr, "--"+flag) && code != exitDone {
				t.Errorf("%q: exit code %d\n%s", args, code, stderr)
			}
		}
	}
}

// A service that accepts connections and never answers keeps no shell waiting.
func TestCompletionIsBounded(t *testing.T) {
	t.Setenv("XDG_STATE_HOME", t.TempDir())
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	silent, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	defer recordService(aa.Dir, serviceRecord{State: filepath.Join(t.TempDir(), "state"), Admin: silent.Addr().String()}, slog.New(slog.DiscardHandler))()
	start := time.Now()
	code, stdout, _ := runCLI(t, cobra.ShellCompRequestCmd, "-C", aa.Path(), "queue", "show", "x", "")
	if took := time.Since(start); code != exitDone || took > completionTime+2*time.Second || took < completionTime/2 {
		t.Errorf("exit code %d after %v:\n%s", code, took, stdout)
	}
}
