package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"peerlink/internal/terminal/terminaltest"
	"peerlink/link"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// A session is a command with a pseudo-terminal as its controlling terminal.
type session struct {
	t        *testing.T
	cmd      *exec.Cmd
	keyboard *os.File
	screen   *os.File // the other end of the terminal, which the command uses
	exited   chan struct{}

	mu     sync.Mutex
	output bytes.Buffer
}

// startOnTerminal starts a peerlink command on a terminal.
func startOnTerminal(t *testing.T, dir string, args ...string) *session {
	t.Helper()
	return startCommandOnTerminal(t, dir, filepath.Join(build(t), "peerlink"), args...)
}

// startCommandOnTerminal is like startOnTerminal, but for any program.
func startCommandOnTerminal(t *testing.T, dir, program string, args ...string) *session {
	t.Helper()
	keyboard, terminal := terminaltest.Open(t)
	s := &session{t: t, keyboard: keyboard, screen: terminal, exited: make(chan struct{})}
	s.cmd = exec.Command(program, args...)
	s.cmd.Dir = dir
	s.cmd.Env = append(os.Environ(), "NO_COLOR=1", "XDG_STATE_HOME="+t.TempDir())
	s.cmd.Stdin, s.cmd.Stdout, s.cmd.Stderr = terminal, terminal, terminal
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.cmd.Wait(); close(s.exited) }()
	t.Cleanup(func() { s.cmd.Process.Kill(); <-s.exited })
	go func() {
		buf := make([]byte, 4096)
		for {
			n, err := keyboard.Read(buf)
			s.mu.Lock()
			s.output.Write(buf[:n])
			s.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	return s
}

func (s *session) shown() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.output.String()
}

// expect waits until the terminal shows a text.
func (s *session) expect(text string) {
	s.t.Helper()
	until(s.t, "the text "+text, func() error {
		if shown := s.shown(); !strings.Contains(shown, text) {
			return fmt.Errorf("the terminal shows %q", shown)
		}
		return nil
	})
}

func (s *session) typeText(text string) {
	s.t.Helper()
	if _, err := s.keyboard.WriteString(text); err != nil {
		s.t.Fatal(err)
	}
}

// expectEnd waits for the end of the process, and returns its exit code.
func (s *session) expectEnd() int {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(10 * time.Second):
		s.t.Fatalf("the command has not ended, and shows\n%s", s.shown())
	}
	return s.cmd.ProcessState.ExitCode()
}

// Ctrl-C and SIGTERM end a command at every prompt, and wherever it reads from the terminal.
// Afterwards the terminal echoes input.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	other := nodetest.New(t, nodetype.AccountingAuthority, "other.example.com:1234")
	nodetest.Peer(t, aa, ca)
	single := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	dir := t.TempDir()
	if err := makeAside(dir, link.DefaultQueuePattern.Name(aa.Identity().ID, 0), 1, "a reason", "{}"); err != nil {
		t.Fatal(err)
	}
	message := "message check --peer " + aa.Identity().ID + " --direction out --type FinalizeTransfer -C " + ca.Path()
	for line, prompt := range map[string]string{
		"init":                 "Type of the node",
		"init creditors-agent": "Address where peers reach",
		"init creditors-agent --server localhost:1":                     "Press Enter to take it",
		"init creditors-agent --server localhost:1 --passphrase-file -": "\x00", // no prompt
		"key drill --type -C " + ca.Path():                              "Share 1",
		"key join --out joined.key -C " + ca.Path():                     "Share 1",
		"peer sign " + other.Bundle(t) + " -C " + single.Path():         "Fingerprint: ",
		"send " + aa.Identity().ID + " -C " + ca.Path():                 "\x00",
		message: "\x00",
		"peer deactivate " + aa.Identity().ID + " -C " + ca.Path():                      "Type yes or no",
		"queue drop " + aa.Identity().ID + " --all --state " + dir + " -C " + ca.Path(): "Type yes or no",
		"request forget 7 -C " + ca.Path():                                              "Type yes or no",
	} {
		for _, how := range []string{"Ctrl-C", "SIGTERM"} {
			t.Run(line[:min(len(line), 20)]+" "+how, func(t *testing.T) {
				s := startOnTerminal(t, dir, strings.Fields(line)...)
				if prompt != "\x00" {
					s.expect(prompt)
				} else {
					s.expectReading()
				}
				if how == "Ctrl-C" {
					s.typeText("\x03")
				} else if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				if code := s.expectEnd(); code != 1 {
					t.Errorf("exit code %d\n%s", code, s.shown())
				}
				s.expect("interrupted")
				if !s.echo() {
					t.Error("the terminal does not echo input")
				}
			})
		}
	}
}

// echo reports whether the terminal echoes input.
func (s *session) echo() bool {
	s.t.Helper()
	mode, err := unix.IoctlGetTermios(int(s.keyboard.Fd()), unix.TCGETS)
	if err != nil {
		s.t.Fatal(err)
	}
	return mode.Lflag&unix.ECHO != 0
}

// expectEcho waits until the terminal echoes input, or does not, according to want.
func (s *session) expectEcho(want bool) {
	s.t.Helper()
	until(s.t, "echo", func() error {
		if s.echo() != want {
			return fmt.Errorf("echo is %v", !want)
		}
		return nil
	})
}

// hiddenLine is a command that asks for a passphrase, and hiddenPrompt is part of its prompt.
const (
	hiddenLine   = "init creditors-agent --server localhost:1"
	hiddenPrompt = "Press Enter to take it"
)

// If a signal ends a command at a prompt without echo, the terminal echoes input afterwards,
// and the command shows only that it was interrupted.
func TestHiddenPromptSignals(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(s *session){
		"Ctrl-\\": func(s *session) { s.typeText("\x1c") },
		"SIGQUIT": func(s *session) { s.cmd.Process.Signal(syscall.SIGQUIT) },
		"SIGHUP":  func(s *session) { s.cmd.Process.Signal(syscall.SIGHUP) },
	} {
		t.Run(name, func(t *testing.T) {
			if name == "SIGHUP" && signal.Ignored(syscall.SIGHUP) {
				t.Skip("SIGHUP is ignored here, as under nohup, and so by the command")
			}
			s := startOnTerminal(t, t.TempDir(), strings.Fields(hiddenLine)...)
			s.expect(hiddenPrompt)
			s.expectEcho(false)
			end(s)
			if code := s.expectEnd(); code != 1 || strings.Contains(s.shown(), "goroutine") {
				t.Errorf("exit code %d\n%s", code, s.shown())
			}
			s.expect("interrupted")
			if !s.echo() {
				t.Error("the terminal does not echo input")
			}
		})
	}
}

// After Ctrl-Z at a prompt without echo, the terminal echoes input in the shell. After "fg"
// the prompt is shown again, without echo.
func TestHiddenPromptStop(t *testing.T) {
	t.Parallel()
	script := "set -m; '" + filepath.Join(build(t), "peerlink") + "' " + hiddenLine + "; echo it is stopped; read line; fg; echo it is done"
	s := startCommandOnTerminal(t, t.TempDir(), "sh", "-c", script)
	for round := 1; round <= 2; round++ {
		until(t, "the prompt", func() error {
			if n := strings.Count(s.shown(), hiddenPrompt); n != round {
				return fmt.Errorf("the prompt is shown %d times: %s", n, s.shown())
			}
			return nil
		})
		s.expectEcho(false)
		if round == 1 {
			s.typeText("\x1a")
			s.expect("it is stopped")
			s.expectEcho(true)
			s.typeText("\n")
		}
	}
	s.typeText("correct horse battery staple\n")
	s.expect("Now type it")
	s.expectEcho(false)
	s.typeText("correct horse battery staple\n")
	s.expectEnd()
	s.expect("it is done")
	if !s.echo() {
		t.Error("the terminal does not echo input")
	}
	if strings.Contains(s.shown(), "staple") {
		t.Errorf("the terminal shows the passphrase: %s", s.shown())
	}
}

// expectReading types an empty line, and waits until the process has read it. From
// then on the process waits for more input.
func (s *session) expectReading() {
	s.t.Helper()
	s.typeText("\n")
	s.expect("\n") // the echo
	until(s.t, "reading", func() error {
		n, err := unix.IoctlGetInt(int(s.screen.Fd()), unix.TIOCINQ)
		if err == nil && n > 0 {
			err = fmt.Errorf("%d bytes are not read", n)
		}
		return err
	})
}

// One Ctrl-D ends the input of a command that reads standard input or asks a question, and the
// command fails. Afterwards the terminal echoes input.
func TestEndOfInput(t *testing.T) {
	t.Parallel()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	nodetest.Peer(t, aa, ca)
	for line, want := range map[string]string{
		"send " + aa.Identity().ID + " -C " + ca.Path():                                                         "standard input holds no message",
		"message check --peer " + aa.Identity().ID + " --direction out --type FinalizeTransfer -C " + ca.Path(): "standard input is empty",
		"init":     "the input has ended",
		hiddenLine: "the input has ended",
		"init creditors-agent --server localhost:1 --passphrase-file -": "the first line is empty",
		"key drill --type -C " + ca.Path():                              "the input has ended",
	} {
		s := startOnTerminal(t, t.TempDir(), strings.Fields(line)...)
		s.typeText("\x04")
		if code := s.expectEnd(); code != 1 {
			t.Errorf("%s: exit code %d\n%s", line, code, s.shown())
		}
		s.expect(want)
		if !s.echo() {
			t.Errorf("%s: the terminal does not echo input", line)
		}
	}
}

// As the prompts for shares say, two empty lines after line 5 end a share. The next prompt is
// for the next share.
func TestTypedShareEnds(t *testing.T) {
	t.Parallel()
	o := newOwner(t)
	o.write("pass", []byte("correct horse"))
	o.makesNode("key", "pass")
	out := o.does("-C", "node", "key", "split", "--shares", "2", "--threshold", "2", "--text", "--out", "pages", "--key", "key", "--passphrase-file", "pass")
	if strings.Contains(out, "Warning") {
		t.Errorf("a warning about a new folder: %s", out)
	}
	s := startOnTerminal(t, o.home, "-C", "node", "key", "drill", "--type")
	s.expect("press Enter twice")
	_, words, _ := strings.Cut(o.read("pages/share-1-of-2.txt"), "\n\n")
	lines, _, _ := strings.Cut(words, "\n\n")
	for n, line := range strings.Split(lines, "\n") {
		s.expect(fmt.Sprintf("%2d: ", n+1))
		s.typeText(line + "\n")
	}
	s.expect("Enter twice, if that was all")
	s.typeText("\n")
	s.expect("Enter again, if that was all")
	s.typeText("\n")
	s.expect("Share 2: ")
}

// The output has colours only if the terminal supports them.
func TestDumbTerminal(t *testing.T) {
	t.Parallel()
	for term, want := range map[string]bool{"xterm": true, "dumb": false} {
		s := startCommandOnTerminal(t, t.TempDir(), "env", "NO_COLOR=", "TERM="+term, filepath.Join(build(t), "peerlink"), "check")
		s.expectEnd()
		s.expect("Error:")
		if strings.Contains(s.shown(), "\x1b[") != want {
			t.Errorf("TERM=%s: %q", term, s.shown())
		}
	}
}

// A process that cannot end after the first signal, because its output is not read, ends
// after the second signal.
func TestSecondSignal(t *testing.T) {
	t.Parallel()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	size, err := unix.FcntlInt(w.Fd(), unix.F_GETPIPE_SZ, 0)
	if err != nil {
		t.Fatal(err)
	}
	held := size - 100 // there is room for the first line
	if _, err := w.Write(make([]byte, held)); err != nil {
		t.Fatal(err)
	}
	s := &session{t: t, cmd: exec.Command(filepath.Join(build(t), "peerlink"), "-C", aa.Path(), "check"), exited: make(chan struct{})}
	s.cmd.Stdout = w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { s.cmd.Wait(); close(s.exited) }()
	defer s.cmd.Process.Kill()
	until(t, "the first line", func() error {
		if n, err := unix.IoctlGetInt(int(r.Fd()), unix.TIOCINQ); err != nil || n <= held {
			return fmt.Errorf("%d bytes are in the pipe, %v", n, err)
		}
		return nil
	})
	until(t, "the end", func() error {
		s.cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-s.exited:
			return nil
		default:
			return fmt.Errorf("the process has not ended")
		}
	})
}

// After an invalid answer, a prompt asks again. Earlier answers are not lost.
func TestPromptAsksAgain(t *testing.T) {
	t.Parallel()
	s := startOnTerminal(t, t.TempDir(), "init", "--key-type", "p256")
	for _, step := range [][2]string{
		{"Type of the node", "creditor-agent\n"},
		{"creditor-agent", "accounting-authority\n"},
		{"Node ID", "1234ABCD\n"},
		{"cannot be", "1234abcd\n"},
		{"Address where", "localhost\n"},
		{"localhost", "localhost:1234\n"},
		{"Press Enter to take it", "correct horse battery staple\n"},
		{"Now type it", "correct horse battery stable\n"},
		{"not the same passphrase", "correct horse battery staple\n"},
	} {
		s.expect(step[0])
		s.typeText(step[1])
	}
	until(t, "the second question", func() error {
		if n := strings.Count(s.shown(), "Now type it"); n != 2 {
			return fmt.Errorf("the question is asked %d times", n)
		}
		return nil
	})
	s.typeText("correct horse battery staple\n")
	if code := s.expectEnd(); code != 0 {
		t.Errorf("exit code %d\n%s", code, s.shown())
	}
	s.expect("This is the node ID")
}
