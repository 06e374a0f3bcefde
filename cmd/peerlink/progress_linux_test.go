package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"peerlink/link"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// A command that works for longer than a second shows that on a terminal, and leaves only its messages
// there.
func TestProgressOnTerminal(t *testing.T) {
	t.Parallel()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	nodetest.Peer(t, aa, ca)
	id, dir := aa.Identity().ID, t.TempDir()
	if err := makeAside(dir, link.DefaultQueuePattern.Name(id, 0), 0, "", "{}"); err != nil {
		t.Fatal(err)
	}
	fifo := filepath.Join(dir, "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	s := startOnTerminal(t, dir, "send", "-C", ca.Path(), "--state", dir, id, fifo)
	in, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	s.expect("Reading the messages… 1 s")
	if _, err := in.WriteString("not a message\n"); err != nil {
		t.Fatal(err)
	}
	if code := s.expectEnd(); code != 1 {
		t.Errorf("exit code %d", code)
	}
	s.expect("line 1")
	if _, after, _ := strings.Cut(s.shown(), "1 s"); !strings.Contains(after, "\r\x1b[KError:") {
		t.Errorf("the line is not removed: %q", s.shown())
	}
}
