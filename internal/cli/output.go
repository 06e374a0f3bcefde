package cli

import (
	"encoding/json"
	"strings"
	"text/tabwriter"
	"unicode"
)

// json prints v for machines.
func (a *app) json(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// table prints names and values, for people.
func (a *app) table(rows [][2]string) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, r := range rows {
		w.Write([]byte(r[0] + "\t" + plain(r[1]) + "\n"))
	}
}

// columns prints a table with a heading, for people.
func (a *app) columns(rows [][]string) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, r := range rows {
		for i := range r {
			r[i] = plain(r[i])
		}
		w.Write([]byte(strings.Join(r, "\t") + "\n"))
	}
}

// plain keeps foreign text from controlling the terminal.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) || !unicode.IsPrint(r) {
			return '�'
		}
		return r
	}, s)
}

func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
