package passphrase

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// openTerminal returns both ends of a terminal of the kernel.
func openTerminal(t *testing.T) (keyboard, terminal *os.File) {
	t.Helper()
	keyboard, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { keyboard.Close() })
	if err := unix.IoctlSetPointerInt(int(keyboard.Fd()), unix.TIOCSPTLCK, 0); err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	n, err := unix.IoctlGetInt(int(keyboard.Fd()), unix.TIOCGPTN)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	terminal, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("no terminals here: %v", err)
	}
	t.Cleanup(func() { terminal.Close() })
	return keyboard, terminal
}

// A passphrase that may be set is one that a prompt on a real terminal delivers
// byte for byte.
func TestPromptDelivers(t *testing.T) {
	passphrases := []string{
		"correct horse battery staple", " leading, trailing ", "caf\u00e9", "cafe\u0301", "пароль", "密码\u3000密码", "😀😀😀😀",
		strings.Repeat("x", Max), strings.Repeat("é", Max/2), `\^?"'$` + "`",
	}
	for r := rune(0); r < 0x250; r++ {
		passphrases = append(passphrases, "ab"+string(r)+"cd")
	}
	keyboard, terminal := openTerminal(t)
	accepted := 0
	for _, pass := range passphrases {
		if Check([]byte(pass)) != nil {
			continue
		}
		accepted++
		got := make(chan string)
		go func() {
			line, err := term.ReadPassword(int(terminal.Fd()))
			if err != nil {
				t.Error(err)
			}
			got <- string(line)
		}()
		if _, err := keyboard.WriteString(pass + "\n"); err != nil {
			t.Fatal(err)
		}
		select {
		case line := <-got:
			if line != pass {
				t.Errorf("%q was typed, and %q delivered", pass, line)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%q was typed, and nothing delivered", pass)
		}
	}
	if accepted < 500 {
		t.Errorf("%d passphrases were accepted", accepted)
	}
}
