package cli

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode"

	"golang.org/x/text/width"

	"peerlink/internal/terminal"
)

// A grid is a table with a heading. Its cells are made safe for terminals when it is shown.
type grid struct {
	columns []column
	rows    [][]cell
}

// A column of a [grid]. On a terminal that is too narrow, texts are cut and columns are dropped; what
// may be neither stays complete, and the line is longer than the terminal is wide.
type column struct {
	title    string
	number   bool // aligned to the right on a terminal
	optional bool // not shown if it is empty in all rows
	cut      int  // the width to which its texts are cut before columns are dropped; 0 means that they are not cut
	drop     int  // columns with the highest value are dropped first; 0 means never
}

// A cell of a [grid].
type cell struct {
	text  string
	style style
}

// minCut is the width to which texts are cut if no column can be dropped.
const minCut = 8

// gap is the number of spaces between columns.
const gap = 2

// add adds a row of cells without a style. An empty cell of an optional column with a title is shown as
// "-", if the column is shown.
func (g *grid) add(texts ...string) {
	row := make([]cell, len(texts))
	for i, text := range texts {
		row[i].text = text
	}
	g.rows = append(g.rows, row)
}

// showGrid prints a table. On a terminal it fits the width if it can, and numbers are aligned to the right.
func (a *app) showGrid(g *grid) {
	g.prepare()
	widths, fits := g.widths(), a.width(a.stdout)
	if fits > 0 {
		widths = g.fit(widths, fits)
	}
	c := a.colours(a.stdout)
	var to io.Writer = a.stdout
	if c {
		to = raw(a.stdout) // every text is escaped already, and the colours must not be
	}
	titles := make([]cell, len(g.columns))
	for i, column := range g.columns {
		titles[i].text = column.title
	}
	for _, row := range append([][]cell{titles}, g.rows...) {
		fmt.Fprintln(to, g.line(row, widths, c, fits > 0))
	}
}

// prepare removes the optional columns that are empty, and makes the texts safe for terminals.
func (g *grid) prepare() {
	for i := len(g.columns) - 1; i >= 0; i-- {
		filled := func(row []cell) bool { return row[i].text != "" }
		if !g.columns[i].optional || slices.ContainsFunc(g.rows, filled) {
			continue
		}
		g.columns = slices.Delete(slices.Clone(g.columns), i, i+1)
		for n, row := range g.rows {
			g.rows[n] = slices.Delete(row, i, i+1)
		}
	}
	for _, row := range g.rows {
		for i := range row {
			row[i].text = terminal.Line(row[i].text)
			if row[i].text == "" && g.columns[i].optional && g.columns[i].title != "" {
				row[i].text = "-"
			}
		}
	}
}

// widths returns the width of each column, in cells of a terminal.
func (g *grid) widths() []int {
	widths := make([]int, len(g.columns))
	for i, column := range g.columns {
		widths[i] = displayWidth(column.title)
		for _, row := range g.rows {
			widths[i] = max(widths[i], displayWidth(row[i].text))
		}
	}
	return widths
}

// total returns the width of a line. Columns with the width -1 are not shown.
func total(widths []int) int {
	sum := -gap
	for _, w := range widths {
		if w >= 0 {
			sum += w + gap
		}
	}
	return sum
}

// fit returns the widths that the columns get on a terminal of the given width; -1 stands for a
// dropped column.
func (g *grid) fit(widths []int, width int) []int {
	for {
		next := g.nextDrop(widths)
		fitted := g.cutWidths(widths, width, next < 0)
		if total(fitted) <= width || next < 0 {
			return fitted
		}
		widths = slices.Clone(widths)
		widths[next] = -1
	}
}

// cutWidths returns the widths with those of columns that may be cut reduced, the last column first, as
// far as is needed and possible. If last is set, no column can be dropped any more.
func (g *grid) cutWidths(widths []int, width int, last bool) []int {
	widths = slices.Clone(widths)
	for i := len(widths) - 1; i >= 0; i-- {
		over, least := total(widths)-width, g.columns[i].cut
		if over <= 0 || least == 0 {
			continue
		}
		if last {
			least = minCut
		}
		least = max(least, displayWidth(g.columns[i].title))
		widths[i] = min(widths[i], max(widths[i]-over, least))
	}
	return widths
}

// nextDrop returns the index of the column to be dropped next, or -1 if there is none.
func (g *grid) nextDrop(widths []int) int {
	next := -1
	for i, column := range g.columns {
		if column.drop > 0 && widths[i] >= 0 && (next < 0 || column.drop > g.columns[next].drop) {
			next = i
		}
	}
	return next
}

// line returns one line of the table. Unless onTerminal is set, numbers are aligned to the left, as they
// were in earlier versions.
func (g *grid) line(row []cell, widths []int, c colours, onTerminal bool) string {
	var line strings.Builder
	first, last := true, lastShown(widths)
	for i, cell := range row {
		if widths[i] < 0 {
			continue
		}
		if !first {
			line.WriteString(strings.Repeat(" ", gap))
		}
		first = false
		text := cutTo(cell.text, widths[i])
		pad := strings.Repeat(" ", widths[i]-displayWidth(text))
		switch {
		case g.columns[i].number && onTerminal:
			line.WriteString(pad + c.show(cell.style, text))
		case i == last:
			line.WriteString(c.show(cell.style, text))
		default:
			line.WriteString(c.show(cell.style, text) + pad)
		}
	}
	if onTerminal {
		return strings.TrimRight(line.String(), " ")
	}
	return line.String()
}

func lastShown(widths []int) int {
	for i := len(widths) - 1; i >= 0; i-- {
		if widths[i] >= 0 {
			return i
		}
	}
	return -1
}

// cutTo returns the text, cut so that it is not wider than the given number of cells of a terminal.
func cutTo(text string, cells int) string {
	if displayWidth(text) <= cells {
		return text
	}
	used := 1 // the ellipsis
	for i, r := range text {
		if used += runeWidth(r); used > cells {
			return text[:i] + "…"
		}
	}
	return text
}

// displayWidth returns the number of cells of a terminal that a text takes.
func displayWidth(text string) (cells int) {
	for _, r := range text {
		cells += runeWidth(r)
	}
	return cells
}

func runeWidth(r rune) int {
	if unicode.In(r, unicode.Mn, unicode.Me) {
		return 0
	}
	if k := width.LookupRune(r).Kind(); k == width.EastAsianWide || k == width.EastAsianFullwidth {
		return 2
	}
	return 1
}
