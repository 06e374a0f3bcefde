package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
	"peerlink/node/pki"
)

// Every command disables core dumps before it reads a passphrase.
func TestGuardedBeforePassphrase(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	fifo := filepath.Join(dir, "pass")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	n := nodetest.New(t, nodetype.DebtorsAgent, "localhost:1234")
	key, err := pki.EncodeEncryptedKey(n.Key, []byte("correct horse battery staple"))
	if err == nil {
		err = node.WriteKeyFile(n.DefaultKeyFile(), key, func([]byte) error { return nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{"-C", filepath.Join(dir, "new"), "init", "creditors-agent", "--server", "localhost:1234", "--passphrase-file", fifo},
		{"-C", n.Path(), "key", "split", "--shares", "2", "--threshold", "2", "--out", filepath.Join(dir, "shares"), "--passphrase-file", fifo},
	} {
		c := exec.Command(os.Args[0], args...)
		c.Env = append(os.Environ(), runMain+"=1")
		var out bytes.Buffer
		c.Stdout, c.Stderr = &out, &out
		if err := c.Start(); err != nil {
			t.Fatal(err)
		}
		f := openReading(t, fifo)
		limits, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", c.Process.Pid))
		if err != nil {
			t.Fatal(err)
		}
		if !regexp.MustCompile(`Max core file size +0 +0 `).Match(limits) {
			t.Errorf("%q: the passphrase is read while the process can be dumped:\n%s", args, limits)
		}
		f.Close() // an empty passphrase: the command fails
		if err := c.Wait(); err == nil || !bytes.Contains(out.Bytes(), []byte("passphrase")) {
			t.Errorf("%q: %v\n%s", args, err, out.Bytes())
		}
	}
}

// openReading opens a named pipe for writing as soon as a process has opened it for reading.
func openReading(t *testing.T, fifo string) *os.File {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		f, err := os.OpenFile(fifo, os.O_WRONLY|unix.O_NONBLOCK, 0)
		if err == nil {
			return f
		}
		if time.Now().After(deadline) {
			t.Fatalf("no process reads the passphrase: %v", err)
		}
	}
}
