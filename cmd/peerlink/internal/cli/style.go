package cli

import (
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"peerlink/internal/terminal"
)

// A style is the meaning of a text in the output, which determines its colour.
type style string

// The values are the parameters of the terminal's escape sequence.
const (
	styleNormal style = ""
	styleGood   style = "32" // green
	styleWarn   style = "33" // yellow
	styleBad    style = "31" // red
	styleIdle   style = "2"  // faint
)

// colours reports whether an output is coloured.
type colours bool

// show returns a text for the output, made safe for terminals, in the colour of its style.
func (c colours) show(s style, text string) string {
	text = terminal.Line(text)
	if !c || s == styleNormal || text == "" {
		return text
	}
	return "\x1b[" + string(s) + "m" + text + "\x1b[0m"
}

// colourModes are the values of --color.
var colourModes = []string{"auto", "always", "never"}

// colourFlag adds the flag --color, for all commands.
func (a *app) colourFlag(c *cobra.Command) {
	c.PersistentFlags().StringVar(&a.colour, "color", "auto", "colour the output: `WHEN` is auto (on a terminal, unless NO_COLOR is set or TERM is dumb), always or never")
}

func (a *app) checkColour() error {
	if !slices.Contains(colourModes, a.colour) {
		return usagef("--color %q: expected %s", a.colour, strings.Join(colourModes, ", "))
	}
	return nil
}

// colours reports whether output to w is coloured.
func (a *app) colours(w io.Writer) colours {
	switch a.colour {
	case "always":
		return true
	case "never":
		return false
	}
	return colours(os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb" && isTerminal(w))
}
