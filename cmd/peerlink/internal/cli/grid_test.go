package cli

import (
	"strings"
	"testing"
)

const longID = "0123456789abcdef0123456789abcdef"

// longNote is a text that is too long for the widths in TestGridLayout.
var longNote = strings.Repeat("words and ", 12)

// cutNote returns longNote as shown in a column of the given width.
func cutNote(width int) string { return longNote[:width-1] + "…" }

// queuesGrid returns a table as wide as those that commands print. The first row has the longest texts.
func queuesGrid(name string) *grid {
	g := &grid{columns: []column{
		{title: "PEER"}, nameColumn, {title: "TYPE", drop: 1}, {title: "QUEUE", drop: 2}, {title: "WAITING", number: true}, {title: "NOTE", cut: 20},
	}}
	g.add(longID, name, "creditors-agent", "peer."+longID+".0", "12345", longNote)
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
	const fits = 80 // the columns that are never dropped fit this width, with every name
	for _, name := range []string{"", "a bank", strings.Repeat("銀行", 20)} {
		for width := 1; width < 300; width++ {
			for _, line := range shown(queuesGrid(name), width) {
				if got := displayWidth(line); got > width && width >= fits {
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
		{"", 200, longID + "  creditors-agent       peer." + longID + ".0    12345  " + cutNote(94)},
		{"", 90, longID + "  creditors-agent         12345  " + cutNote(25)},
		{"", 75, longID + "    12345  " + cutNote(32)},
		{"a bank", 75, longID + "  a bank    12345  " + cutNote(24)},
	} {
		if got := shown(queuesGrid(c.name), c.width)[0]; got != c.want {
			t.Errorf("width %d:\n%s\n%s", c.width, got, c.want)
		}
	}
	if got, want := shown(queuesGrid("a bank"), 0)[1], "1234abcd                          -       accounting-authority  peer.1234abcd.0                          1        "; got != want {
		t.Errorf("without a terminal: %q, want %q", got, want)
	}
}

// The width of a text is counted in cells of the terminal, not in bytes or characters, also where the
// text is cut.
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
