package local

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// fill uses up all space of a disk.
func fill(t *testing.T, ballast string) {
	t.Helper()
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for err == nil {
		_, err = f.Write(bytes.Repeat([]byte("x"), 4096))
	}
	if !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
}

// On a full disk a door opens its Unix socket, which this program's commands find
// without the address file. When there is space again, it opens its TCP port too. The
// files left by a door that was not closed, if they are still valid, need no space.
func TestOpenOnFullDisk(t *testing.T) {
	dir := stateDir(t)
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=256k,mode=0700"); err != nil {
		t.Skipf("skipped: door on a full disk (mounting a small tmpfs: %v)", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	store := openStore(t, t.TempDir())
	openDoor := func(listen string) *Door {
		t.Helper()
		d, err := Open(Config{Store: store, StateDir: dir, Listen: listen, Inbox: "accounts_in", Exchanges: []string{"to_creditors"}, Log: quiet()})
		if err != nil {
			t.Fatal(err)
		}
		return d
	}
	if err := openDoor("none").Close(); err != nil { // makes the passcode
		t.Fatal(err)
	}
	ballast := filepath.Join(dir, "ballast")
	fill(t, ballast)
	d := openDoor("127.0.0.1:0")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- d.Serve(ctx) }()
	c, err := Dial(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	c.Close()
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	var a addresses
	for deadline := time.Now().Add(patience); a.TCP == ""; time.Sleep(10 * time.Millisecond) {
		if a, err = readAddresses(dir); err != nil || time.Now().After(deadline) {
			t.Fatalf("no TCP port: %v, %v", a, err)
		}
	}
	a.Unix = ""
	nc, err := a.dial(ctx, dir)
	if err != nil {
		t.Fatal(err)
	}
	nc.Close()
	cancel()
	if err := <-served; err != nil {
		t.Fatal(err)
	}

	d = openDoor("none")
	if err := d.closeListeners(); err != nil { // like a crash
		t.Fatal(err)
	}
	fill(t, ballast)
	d = openDoor("none")
	if _, err := os.Stat(filepath.Join(dir, addressFile)); err != nil {
		t.Error(err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
}
