package main

import (
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// softHSM is the PKCS #11 library of SoftHSM, where Debian has it.
const softHSM = "/usr/lib/softhsm/libsofthsm2.so"

// hasSSHAgent reports whether the programs for a scenario with an ssh-agent are installed.
func hasSSHAgent() bool {
	for _, program := range []string{"ssh-agent", "ssh-add", "ssh-keygen"} {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	return true
}

// hasSoftHSM reports whether an ssh-agent can have keys on a token of SoftHSM.
func hasSoftHSM() bool {
	for _, program := range []string{"softhsm2-util", "pkcs11-tool"} {
		if _, err := exec.LookPath(program); err != nil {
			return false
		}
	}
	_, err := os.Stat(softHSM)
	return err == nil && hasSSHAgent()
}

// sshagent [silent] starts an ssh-agent, or a program that accepts an agent's connections and never answers, and sets
// SSH_AUTH_SOCK. It ends with the script.
func sshAgent(ts *testscript.TestScript, neg bool, args []string) {
	dir, err := os.MkdirTemp("", "agent") // the paths of sockets must be short
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "s")
	ts.Setenv("SSH_AUTH_SOCK", socket)
	if len(args) > 0 {
		l, err := net.Listen("unix", socket)
		ts.Check(err)
		ts.Defer(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go io.Copy(io.Discard, c)
			}
		}()
		return
	}
	c := exec.Command("ssh-agent", "-D", "-a", socket)
	c.Env = append(os.Environ(), "SOFTHSM2_CONF="+ts.MkAbs("softhsm.conf"))
	ts.Check(c.Start())
	ts.Defer(func() { c.Process.Kill(); c.Wait() })
	for deadline := time.Now().Add(30 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		if conn, err := net.Dial("unix", socket); err == nil {
			conn.Close()
			return
		}
		if time.Now().After(deadline) {
			ts.Fatalf("ssh-agent does not listen")
		}
	}
}

// agentkey NAME TEXT sets a variable to the fingerprint of the agent's key whose line in the output of "ssh-add -l"
// contains the text.
func agentKey(ts *testscript.TestScript, neg bool, args []string) {
	c := exec.Command("ssh-add", "-l")
	c.Env = append(os.Environ(), "SSH_AUTH_SOCK="+ts.Getenv("SSH_AUTH_SOCK"))
	out, err := c.Output()
	ts.Check(err)
	for line := range strings.Lines(string(out)) {
		if fields := strings.Fields(line); len(fields) > 1 && strings.Contains(line, args[1]) {
			ts.Setenv(args[0], fields[1])
			return
		}
	}
	ts.Fatalf("no key with %q:\n%s", args[1], out)
}
