//go:build unix

package cli

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// If a file that a command reads is a named pipe into which no process writes, the
// command still ends when it is interrupted.
func TestNamedPipes(t *testing.T) {
	t.Chdir(t.TempDir())
	bob := makeInputFiles(t)
	for _, name := range slices.Sorted(keys(reading)) {
		for _, line := range reading[name] {
			args := commandLine(name, fillIn(t, line, bob))
			for i, arg := range args {
				before, file, found := strings.Cut(arg, "{")
				if !found {
					continue
				}
				path := filepath.Join(t.TempDir(), filepath.Base(strings.TrimSuffix(file, "}")))
				if err := syscall.Mkfifo(path, 0o600); err != nil {
					t.Fatal(err)
				}
				line := slices.Clone(args)
				line[i] = before + path
				for j := range line {
					line[j] = strings.NewReplacer("{", "", "}", "").Replace(line[j])
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				defer cancel()
				done := make(chan struct{})
				go func() {
					defer close(done)
					if code, stdout, _ := runCLIContext(ctx, t, line...); code == exitDone {
						t.Errorf("peerlink %s succeeds:\n%s", strings.Join(line, " "), stdout)
					}
				}()
				select {
				case <-done:
				case <-time.After(20 * time.Second):
					t.Errorf("peerlink %s does not end when it is interrupted", strings.Join(line, " "))
					f, err := os.OpenFile(path, os.O_RDWR, 0)
					if err != nil {
						t.Fatal(err)
					}
					f.Close() // the command reads the end of the file
					<-done
				}
			}
		}
	}
}
