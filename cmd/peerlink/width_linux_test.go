package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"peerlink/internal/terminal/terminaltest"
	"peerlink/link"
	"peerlink/node/nodetest"
	"peerlink/node/nodetype"
)

// onTerminal returns what a command shows on a terminal of the given width.
func onTerminal(t *testing.T, width int, args ...string) string {
	t.Helper()
	keyboard, terminal := terminaltest.Open(t)
	size := &unix.Winsize{Col: uint16(width), Row: 50}
	if err := unix.IoctlSetWinsize(int(terminal.Fd()), unix.TIOCSWINSZ, size); err != nil {
		t.Fatal(err)
	}
	c := exec.Command(program(t), args...)
	c.Env = append(os.Environ(), "NO_COLOR=1", "XDG_STATE_HOME="+t.TempDir())
	c.Stdin, c.Stdout, c.Stderr = terminal, terminal, terminal
	screen := make(chan string)
	go func() {
		var all strings.Builder
		buf := make([]byte, 4096)
		for !strings.Contains(all.String(), "\x00") {
			n, err := keyboard.Read(buf)
			all.Write(buf[:n])
			if err != nil {
				break
			}
		}
		screen <- strings.TrimSuffix(strings.ReplaceAll(all.String(), "\r\n", "\n"), "\x00")
	}()
	err := c.Run()
	terminal.Write([]byte{0}) // the end of what the command has written
	shown := <-screen
	if err != nil {
		t.Fatalf("peerlink %s: %v\n%s", strings.Join(args, " "), err, shown)
	}
	return shown
}

// Tables fit terminals of 80, 120 and 200 columns, with the IDs and the ages complete, and the reason why
// a message was set aside can be read as a whole.
func TestTablesFitTerminal(t *testing.T) {
	t.Parallel()
	aa := nodetest.New(t, nodetype.AccountingAuthority, "aa.example.com:1234")
	ca := nodetest.New(t, nodetype.CreditorsAgent, "ca.example.com:1234")
	nodetest.Peer(t, aa, ca)
	id := ca.Identity().ID
	const reason = "invalid PrepareTransfer: the reason why this message was set aside is longer than a line of 80 columns"
	state := t.TempDir()
	if err := makeAside(state, link.DefaultQueuePattern.Name(id, 0), 1, reason, "{}"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"", "The Harbour Bank of Somewhere"} {
		if err := aa.SetPeerName(t.Context(), id, name); err != nil {
			t.Fatal(err)
		}
		for _, width := range []int{80, 120, 200} {
			for _, line := range []string{
				"peer list", "check", "", "queue list --state " + state, "queue show " + id + " --state " + state,
			} {
				shown := onTerminal(t, width, append([]string{"-C", aa.Path()}, strings.Fields(line)...)...)
				t.Logf("%d columns, peerlink %s\n%s", width, line, shown)
				checkWidth(t, shown, id, width)
				if strings.HasPrefix(line, "queue show") && !strings.Contains(strings.Join(strings.Fields(shown), " "), reason) {
					t.Errorf("%d columns: the reason is cut", width)
				}
				if strings.HasPrefix(line, "queue list") && !strings.Contains(shown, "OLDEST ASIDE") {
					t.Errorf("%d columns: the age is missing", width)
				}
				if name != "" && line != "" && !strings.HasPrefix(line, "queue show") && !strings.Contains(shown, "The Harbour") {
					t.Errorf("%d columns: the name is missing", width)
				}
			}
		}
	}
}

// checkWidth checks that an ID is shown, and that no line with it is wider than the terminal.
func checkWidth(t *testing.T, shown, id string, width int) {
	t.Helper()
	if !strings.Contains(shown, id) {
		t.Errorf("%d columns: no %s", width, id)
	}
	for _, text := range strings.Split(shown, "\n") {
		if n := len([]rune(text)); n > width && strings.Contains(text, id) {
			t.Errorf("%d columns: %d columns in\n%s", width, n, text)
		}
	}
}
