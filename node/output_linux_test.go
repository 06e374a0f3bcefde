package node_test

import (
	"crypto/x509"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/internal/durable"
	"peerlink/node/nodetest"
	"peerlink/node/pki"
)

// If the disk for the output file is full, no info-bundle is published or dated.
func TestBundleOnFullDisk(t *testing.T) {
	n := nodetest.New(t, ca, "ca.example.com:1234")
	n.Bundle(t)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k,mode=0700"); err != nil {
		t.Skipf("skipped: an output file on a full disk (mounting a small tmpfs: %v)", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	if err != nil {
		t.Fatal(err)
	}
	defer ballast.Close()
	for err == nil {
		_, err = ballast.Write(make([]byte, 4096))
	}
	before := snapshot(t, n.Path())
	if err := n.CreateBundle(ctx, filepath.Join(dir, "x.zip"), n.Key); !errors.Is(err, unix.ENOSPC) {
		t.Errorf("%v, want that the disk is full", err)
	}
	if after := snapshot(t, n.Path()); after != before {
		t.Errorf("the directory has changed:\n%s\nbefore:\n%s", after, before)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}

// A server certificate that can not be written is not recorded.
func TestServerCertificateNotWritten(t *testing.T) {
	n, other := nodetest.New(t, ca, "ca.example.com:1234"), nodetest.New(t, ca, "x.example.com:1")
	der, err := pki.NewCSR(n.Identity(), other.Key, pki.ServerCSR)
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		t.Fatal(err)
	}
	before := snapshot(t, n.Path())
	full := errors.New("full")
	if _, err := n.SignServerFunc(ctx, n.Key, csr, time.Hour, func(cert *x509.Certificate) error {
		if cert == nil {
			t.Error("no certificate")
		}
		return full
	}); !errors.Is(err, full) {
		t.Errorf("%v", err)
	}
	if snapshot(t, n.Path()) != before {
		t.Error("the directory has changed")
	}
	// CheckCreatable leaves nothing behind either.
	dir := t.TempDir()
	if err := durable.CheckCreatable(filepath.Join(dir, "x")); err != nil {
		t.Error(err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
		t.Errorf("files are left: %v, %v", left, err)
	}
}
