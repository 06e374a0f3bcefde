package cli

import (
	"strings"
	"testing"
)

const longID = "0123456789abcdef0123456789abcdef"

// queuesGrid is a table as wide as those that commands print.
func queuesGrid(name string) *grid {
	g := &grid{columns: []column{
		{title: "PEER"}, nameColumn, {title: "TYPE", drop: 1}, {title: "QUEUE", drop: 2}, {title: "WAITING", number: true}, {title: "NOTE", cut: 20},
	}}
	g.add(longID, name, "creditors-agent", "peer."+longID+".0", "12345", strings.Repeat("words and ", 12))
	g.add("1234abcd", "", "accounting-authority", "peer.1234abcd.0", "1", "")
	return g
}

// shown returns the lines of a table on a terminal of the given width.
func shown(g *grid, width int) (lines []string) {
	g.prepare()
	widths := g.widths()
	if width > 0 {
		widths = g.fit(widths, width)
	}
	for _, row := range g.rows {
		lines = append(lines, g.line(row, widths, false, width > 0))
	}
	return lines
}

// A table fits every width at which the columns that are never dropped fit, and an ID is never cut,
// however narrow the terminal is.
func TestGridFits(t *testing.T) {
	for _, name := range []string{"", "a bank", strings.Repeat("銀行", 20)} {
		for width := 1; width < 300; width++ {
			for _, line := range shown(queuesGrid(name), width) {
				if got := displayWidth(line); got > width && width >= 80 {
					t.Fatalf("width %d: a line is %d wide:\n%s", width, got, line)
				}
				if strings.HasPrefix(line, "0123") && !strings.HasPrefix(line, longID+"  ") || strings.Contains(line, "peer.0") && !strings.Contains(line, "peer."+longID+".0") {
					t.Fatalf("width %d: an ID is cut:\n%s", width, line)
				}
			}
		}
	}
}

// Columns are dropped in their order, numbers are aligned to the right, optional columns are shown if
// they are not empty, and only texts that may be cut are cut, visibly.
func TestGridLayout(t *testing.T) {
	for _, c := range []struct {
		name  string
		width int
		want  string
	}{
		{"", 200, longID + "  creditors-agent       peer." + longID + ".0    12345  words"},
		{"", 90, longID + "  creditors-agent         12345  words and words …"},
		{"", 75, longID + "    12345  words and words"},
		{"a bank", 75, longID + "  a bank    12345  words and words "},
	} {
		if got := shown(queuesGrid(c.name), c.width)[0]; !strings.HasPrefix(got, strings.TrimSuffix(c.want, "…")) || c.width < 200 && !strings.HasSuffix(got, "…") {
			t.Errorf("width %d:\n%s\n%s", c.width, got, c.want)
		}
	}
	if got := shown(queuesGrid("a bank"), 0)[1]; !strings.HasPrefix(got, "1234abcd                          -       accounting-authority  peer.1234abcd.0                          1        ") {
		t.Errorf("without a terminal: %s", got)
	}
}

// The width of a text is counted in cells of the terminal, not in bytes or characters.
func TestDisplayWidth(t *testing.T) {
	for text, want := range map[string]int{"": 0, "bank": 4, "Büro": 4, "Bu\u0308ro": 4, "銀行": 4, "ｆ": 2} {
		if got := displayWidth(text); got != want {
			t.Errorf("%q: %d, want %d", text, got, want)
		}
	}
	if got := cutTo("銀行銀行", 6); got != "銀行…" {
		t.Error(got)
	}
}

// A text is wrapped between words only.
func TestWrap(t *testing.T) {
	if got := strings.Join(wrap("one two averyveryverylongword three", 8), "|"); got != "one two|averyveryverylongword|three" {
		t.Error(got)
	}
}
