package socket

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

// A listener of another user is detected, whatever the path of the socket.
func TestCheckListener(t *testing.T) {
	if path := os.Getenv("SOCKET_TEST_LISTEN"); path != "" {
		if _, err := net.Listen("unix", path); err != nil {
			t.Fatal(err)
		}
		os.Stdout.WriteString("listening\n")
		os.Stdin.Read(make([]byte, 1)) // until the test ends
		return
	}
	dir := folder(t)
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	check := func(path string) error {
		nc, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		defer nc.Close()
		return CheckListener(nc, fi)
	}
	own, err := Listen(filepath.Join(dir, "own"))
	if err != nil {
		t.Fatal(err)
	}
	defer own.Close()
	if err := check(filepath.Join(dir, "own")); err != nil {
		t.Errorf("own socket: %v", err)
	}
	if os.Geteuid() != 0 {
		t.Skip("only root can act as another user: skipped in part")
	}
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "theirs")
	binary := filepath.Join(dir, "test")
	data, err := os.ReadFile(os.Args[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(binary, data, 0o755); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(binary, "-test.run=^TestCheckListener$")
	c.Dir, c.Env = "/", append(os.Environ(), "SOCKET_TEST_LISTEN="+path)
	c.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	stdin, err := c.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	defer c.Wait()
	defer stdin.Close()
	if line, err := bufio.NewReader(stdout).ReadString('\n'); err != nil || line != "listening\n" {
		t.Fatalf("%q, %v", line, err)
	}
	if err := check(path); err == nil {
		t.Error("another user's socket is accepted")
	}
}
