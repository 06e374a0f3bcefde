package main

import (
	"bytes"
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"peerlink/link"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// "send" on a full disk fails within seconds, with exit code 1 and the reason, and nothing is queued. With space, it
// succeeds.
func TestSendOnFullDisk(t *testing.T) {
	t.Parallel()
	state := t.TempDir()
	if err := syscall.Mount("tmpfs", state, "tmpfs", 0, "size=32m,mode=0700"); err != nil {
		t.Skipf("skipped: sending on a full disk (mounting a small tmpfs: %v)", err)
	}
	t.Cleanup(func() { _ = syscall.Unmount(state, syscall.MNT_DETACH) })
	own, peer := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234"), nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	nodetest.Peer(t, own, peer)
	if err := makeAside(state, link.DefaultQueuePattern.Name(peer.Identity().ID, 0), 0, "", "{}"); err != nil { // a store
		t.Fatal(err)
	}
	message := filepath.Join(t.TempDir(), "message")
	const text = `{"type":"ConfigureAccount","debtor_id":1311862288428302337,"creditor_id":1103806595073,"negligible_amount":0.0,"config_data":"","config_flags":0,"seqnum":1,"ts":"2026-01-01T12:00:00Z"}`
	if err := os.WriteFile(message, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(args ...string) (string, error) {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Second) // a few, on a quiet machine
		defer cancel()
		out, err := exec.CommandContext(ctx, program(t), append([]string{"-C", own.Path()}, args...)...).CombinedOutput()
		if ctx.Err() != nil {
			t.Fatalf("%s does not end", args[0])
		}
		return string(out), err
	}
	send := func() (string, error) { return run("send", peer.Identity().ID, message, "--state", state) }
	queued := func() string {
		out, err := run("queue", "list", "--state", state, "--json")
		if err != nil {
			t.Fatal(err, out)
		}
		return out
	}
	if out, err := send(); err != nil {
		t.Fatal(err, out)
	}
	before := queued()
	ballast := filepath.Join(state, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte("x"), 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	f.Close()
	out, err := send()
	if exit := (*exec.ExitError)(nil); !errors.As(err, &exit) || exit.ExitCode() != 1 || !strings.Contains(out, "no room in the message store") {
		t.Errorf("on a full disk: %v\n%s", err, out)
	}
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	if after := queued(); after != before {
		t.Errorf("queued before:\n%s\nafter:\n%s", before, after)
	}
	if out, err := send(); err != nil {
		t.Error(err, out)
	}
}
