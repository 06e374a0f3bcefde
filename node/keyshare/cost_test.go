package keyshare

import (
	"fmt"
	"strings"
	"testing"

	"peerlink/internal/costtest"
)

// Parsing any text as a share allocates at most 32 MiB in total, and takes at most half
// a second. (The cost of opening the key with shares is that of scrypt, which the owner
// has chosen, and the passphrase is entered before.)
func TestParseCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	fill := func(s string) string { return strings.Repeat(s, maxText/len(s)) }
	var wrong, numbered strings.Builder
	for i := range maxLines {
		// Eight words of the list that are not a valid line, so that Parse searches for
		// the wrong word.
		fmt.Fprintf(&wrong, "%s\n", strings.Repeat(wordList()[i]+" ", lineWords))
		fmt.Fprintf(&numbered, "%d %s\n", i+1, strings.Repeat("abacuss ", lineWords))
	}
	for name, text := range map[string]string{
		"wrong lines":       wrong.String(),
		"unknown words":     numbered.String(),
		"one letter words":  fill("a "),
		"one line":          fill("x"),
		"numbers":           fill("1 a\n"),
		"empty lines":       fill("\n"),
		"QR beginnings":     fill(qrPrefix),
		"QR versions":       qrPrefix + strings.Repeat("1", maxText-100) + ":",
		"QR digits":         fill(qrPrefix + "1"),
		"QR code":           qrPrefix + "1:" + strings.Repeat("A", maxText-100),
		"QR spaces":         qrPrefix + "1:" + strings.Repeat("A ", maxText/2-100),
		"not UTF-8":         fill("\xff"),
		"letters that grow": fill("\u023a"),
		"columns":           "This share: lines 1 to 74\n\nx: lines 2 to 74\n\n" + strings.Repeat("abacus ", 592) + "\n\n" + strings.Repeat("abacus ", 584),
		"too long":          strings.Repeat("a\n", 20<<20),
	} {
		var err error
		costtest.Check(t, name, func() { _, err = Parse(text) })
		costtest.Check(t, name, func() { _ = CheckLine(1, text) })
		if err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}
