package cli

import (
	"encoding/json"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"peerlink/internal/terminal"
)

// json prints v as JSON.
func (a *app) json(v any) error {
	e := json.NewEncoder(a.stdout)
	e.SetIndent("", "  ")
	e.SetEscapeHTML(false)
	return e.Encode(v)
}

// jsonFlag adds the flag --json.
func jsonFlag(c *cobra.Command, v *bool) {
	c.Flags().BoolVar(v, "json", false, "print JSON")
}

// result prints the result of a command: v as JSON, or a line of text.
func (a *app) result(asJSON bool, v any, line string) error {
	if asJSON {
		return a.json(v)
	}
	a.print("%s", line)
	return nil
}

// madeFiles are the files that a command has made, in JSON.
type madeFiles struct {
	Files []string `json:"files"`
}

// table prints names and values as a table.
func (a *app) table(rows [][2]string) {
	w := tabwriter.NewWriter(a.stdout, 0, 0, 2, ' ', 0)
	defer w.Flush()
	for _, r := range rows {
		w.Write([]byte(r[0] + "\t" + terminal.Line(r[1]) + "\n"))
	}
}

// orNone returns s, or "-" if s is empty.
func orNone(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
