package registry

import (
	"fmt"
	"strings"
	"testing"

	"peerlink/internal/costtest"
)

// Parsing a list of the permitted size allocates at most 32 MiB in total, and takes at
// most half a second, whatever the list contains.
func TestParseCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	fill := func(line string) []byte {
		const head = "version = 1\n"
		return []byte(head + strings.Repeat(line, (maxList-len(head))/len(line)))
	}
	var full strings.Builder
	full.WriteString("version = 1\n")
	for i := 0; full.Len() < maxList-200; i++ {
		fmt.Fprintf(&full, "[[authority]]\nid = \"%08x\"\nname = \"x\"\nfingerprint = \"sha256:%064x\"\n", i, i)
	}
	valid := map[string]bool{"full": true, "empty lines": true, "spaces": true, "comments": true}
	for name, list := range map[string][]byte{
		"full":        []byte(full.String()),
		"empty lines": fill("\n"),
		"spaces":      fill(strings.Repeat(" ", maxLine-1) + "\n"),
		"tabs":        fill(strings.Repeat("\t", maxLine-1) + "x\n"),
		"comments":    fill("#\n"),
		"headers":     fill("[[authority]]\n"),
		"keys":        fill("id=\"\"\n"),
		"versions":    fill("version=1\n"),
		"escapes":     fill("name=\"" + strings.Repeat(`\u0041`, 160) + "\"\n"),
		"long keys":   fill(strings.Repeat("a", maxLine-1) + "\n"),
		"no lines":    []byte(strings.Repeat("a", maxList)),
		"entries":     fill("[[authority]]\nid=\"\"\n"),
		"signatures":  fill(signaturePrefix + strings.Repeat("A", 88) + "\n"),
		"times":       fill("valid-until=2027-01-01T00:00:00Z\n"),
		"mantissa":    fill("version=" + strings.Repeat("9", maxLine-10) + "\n"),
	} {
		var err error
		costtest.Check(t, name, func() { _, err = parse(list, nil, now) })
		if err == nil && !valid[name] {
			t.Errorf("%s: accepted", name)
		}
	}
}
