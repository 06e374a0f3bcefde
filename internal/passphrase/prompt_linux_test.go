package passphrase

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/term"

	"peerlink/internal/terminal/terminaltest"
)

// A prompt on a real terminal returns every permitted passphrase byte for byte.
func TestPromptDelivers(t *testing.T) {
	passphrases := []string{
		"correct horse battery staple", " leading, trailing ", "caf\u00e9", "cafe\u0301", "пароль", "密码\u3000密码", "😀😀😀😀",
		strings.Repeat("x", maxBytes), strings.Repeat("é", maxBytes/2), `\^?"'$` + "`",
	}
	for r := rune(0); r < 0x250; r++ {
		passphrases = append(passphrases, "ab"+string(r)+"cd")
	}
	keyboard, terminal := terminaltest.Open(t)
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
				t.Errorf("typed %q, got %q", pass, line)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("typed %q, got nothing within 10 s", pass)
		}
	}
	if accepted < 500 {
		t.Errorf("%d passphrases are accepted, want at least 500", accepted)
	}
}
