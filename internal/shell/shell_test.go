package shell_test

import (
	"os/exec"
	"strings"
	"testing"

	"peerlink/internal/shell"
	"peerlink/internal/terminal"
)

// A shell takes a quoted word for exactly the text that it was made from, whatever is in that, also after the word was shown on
// a terminal, and runs nothing in it. What needs no quotes has none.
func TestQuote(t *testing.T) {
	words := []string{"a/b-c_1.key", "", "a b", "$(id)", "`id`", "it's", `a"b\c`, "a\nb", "a;b&c|d", "~", "*", "#a", "é ü", "\x1b[31m'\\", "bad\xffbytes", "zero\u200bwidth"}
	if got := shell.Quote(words[0]); got != words[0] {
		t.Errorf("Quote(%q) is %s, want it without quotes", words[0], got)
	}
	bash, err := exec.LookPath("bash") // not every sh knows $'…' yet
	if err != nil {
		t.Skip("skipped, a shell as the judge of quoted words: there is no bash")
	}
	for _, want := range words {
		word := shell.Quote(want)
		if shown := terminal.Line(word); shown != word {
			t.Errorf("Quote(%q) is %q, which a terminal shows as %q", want, word, shown)
		}
		out, err := exec.Command(bash, "-c", "printf %s. "+word).Output()
		if got := strings.TrimSuffix(string(out), "."); err != nil || got != want {
			t.Errorf("the shell takes %s for %q, %v, want %q", word, got, err, want)
		}
	}
}
