package link_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"peerlink/link/linktest"
)

// The examples of docs/applications.md work, as an author would start them: they send, process what
// comes in, and acknowledge it. The document has them as they are in docs/examples.
func TestExamples(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Abs("../docs/examples")
	if err != nil {
		t.Fatal(err)
	}
	document, err := os.ReadFile("../docs/applications.md")
	if err != nil {
		t.Fatal(err)
	}
	goProgram := filepath.Join(t.TempDir(), "application")
	for _, c := range []struct {
		file    string
		command func() []string // nil if it can not be run
	}{
		{"application.go", func() []string {
			if out, err := exec.Command("go", "build", "-o", goProgram, filepath.Join(examples, "application.go")).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			return []string{goProgram}
		}},
		{"application.py", func() []string {
			const python = "/usr/bin/python3"
			if exec.Command(python, "-c", "import stomp; stomp.Connection12").Run() != nil {
				return nil
			}
			return []string{python, filepath.Join(examples, "application.py")}
		}},
		{"application.mjs", func() []string {
			// Node looks for modules beside the script.
			if modules := os.Getenv("STOMPJS_MODULES"); modules != "" {
				return []string{"node", copyInto(t, modules, filepath.Join(examples, "application.mjs"))}
			}
			return nil
		}},
	} {
		t.Run(c.file, func(t *testing.T) {
			t.Parallel()
			source, err := os.ReadFile(filepath.Join(examples, c.file))
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Contains(document, source) {
				t.Errorf("docs/applications.md does not contain %s as it is", c.file)
			}
			command := c.command()
			if command == nil {
				t.Skipf("skipped: running %s, for lack of its client library (stomp.py: Debian's package python3-stomp; @stomp/stompjs: npm install it in a folder, and set STOMPJS_MODULES to that)", c.file)
			}
			runExample(t, command)
		})
	}
}

// copyInto copies a file into a folder until the test ends, and returns its path there.
func copyInto(t *testing.T, folder, file string) string {
	t.Helper()
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(folder, filepath.Base(file))
	if err := os.WriteFile(path, content, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(path) })
	return path
}

func runExample(t *testing.T, command []string) {
	t.Helper()
	n, other, state := doorPair(t, ca, aa)
	m := linktest.Message(t, n, other, 7)
	other.Put(n, linktest.Message(t, other, n, 8)) // RejectedConfig, with which the example ends
	ctx, cancel := context.WithTimeout(t.Context(), linktest.Timeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, command[0], append(command[1:], state, "12.34.ab.cd.00.00.00.07")...)
	cmd.Stdin = bytes.NewReader(m.Body)
	var failures strings.Builder
	cmd.Stderr = &failures
	out, err := cmd.Output()
	if err != nil { // the libraries may log the end of the connection
		t.Fatalf("%v\n%s\n%s", err, out, failures.String())
	}
	if want := regexp.MustCompile(`(?m)^RejectedConfig \{.*"config_data":"number 8"`); !strings.Contains(string(out), "sent\n") || !want.Match(out) {
		t.Errorf("got %s", out)
	}
	var sent struct {
		Data string `json:"config_data"`
	}
	for _, got := range other.Take(1) {
		if err := json.Unmarshal(got.Body, &sent); err != nil || sent.Data != "number 7" {
			t.Errorf("the peer got %s, %v", got.Body, err)
		}
	}
	linktest.Eventually(t, "acknowledging", func() error {
		info, err := n.Store.Info(t.Context(), ca.Inbox())
		if err == nil && info.Waiting > 0 {
			err = errors.New("the inbox is not empty")
		}
		return err
	})
}
