package cli

import (
	"encoding/json"
	"strings"
	"text/tabwriter"

	"peerlink/internal/terminal"
)

// json prints v as JSON.
func (a *app) json(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints names and values as a table.
func (a *app) table(rows [][2]string) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, r := range rows {
		w.Write([]byte(r[0] + "\t" + terminal.Line(r[1]) + "\n"))
	}
}

// columns prints rows as a table; the first row is the heading.
func (a *app) columns(rows [][]string) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, r := range rows {
		for i := range r {
			r[i] = terminal.Line(r[i])
		}
		w.Write([]byte(strings.Join(r, "\t") + "\n"))
	}
}

// orNone returns s, or "-" if s is empty.
func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
