package cli

import (
	"bytes"
	"strings"
	"testing"
	"time"
)

// Without a terminal, nothing is shown, however long a command works.
func TestProgressWithoutTerminal(t *testing.T) {
	var stderr bytes.Buffer
	a := &app{stderr: &stderr}
	p := a.startProgress("Working")
	p.set(1, 2)
	p.stop()
	if p.to != nil || stderr.Len() != 0 {
		t.Errorf("%q", stderr.String())
	}
}

// Nothing is shown before progressDelay. The line says how much is done, if that is known, and otherwise for
// how long the command has worked, and is removed at the end.
func TestProgressLine(t *testing.T) {
	var to bytes.Buffer
	p := &progress{to: &to, width: 80, text: "Working", since: time.Now(), quit: make(chan struct{})}
	p.wait.Go(p.run)
	p.stop()
	if to.Len() != 0 {
		t.Errorf("%q", to.String())
	}
	for want, set := range map[string]func(){
		"Working… 0 s": func() {},
		"Working: 3…":  func() { p.set(3, 0) },
		"  " + strings.Repeat("█", 10) + strings.Repeat("░", 30) + " 1 of about 4":     func() { p.set(1, 4) },
		"  " + strings.Repeat("█", 40) + " 5 of about 4":                               func() { p.set(5, 4) },
		"  " + strings.Repeat("█", 20) + strings.Repeat("░", 20) + " 2 of about 4 MiB": func() { p.setUnit(" MiB"); p.set(2, 4) },
	} {
		p.setUnit("")
		p.set(0, 0)
		set()
		if got := p.line(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
