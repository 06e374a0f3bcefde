package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// manPage returns the page of a command in man(7). It does not use cobra's package doc, which takes the
// text of the help for Markdown: that drops what looks like HTML, such as <node ID>, and joins the lines
// of examples.
func manPage(c *cobra.Command, date string) string {
	c.InitDefaultHelpFlag()
	var p manWriter
	fmt.Fprintf(&p, ".TH %s 1 %s \"peerlink %s\" peerlink\n", roff(strings.ToUpper(pageName(c))), date, roff(version))
	p.WriteString(".nh\n.ad l\n") // options and commands are neither hyphenated nor stretched
	p.section("NAME")
	p.line(roff(pageName(c)) + ` \- ` + roff(c.Short))
	p.section("SYNOPSIS")
	p.line(`\fB` + roff(c.CommandPath()) + `\fR` + roff(strings.TrimPrefix(c.UseLine(), c.CommandPath())))
	p.section("DESCRIPTION")
	if c.Long != "" {
		p.text(c.Long)
	} else {
		p.line(roff(c.Short) + ".")
	}
	p.commands(c)
	p.flags("OPTIONS", c.NonInheritedFlags())
	p.flags("OPTIONS OF ALL COMMANDS", c.InheritedFlags())
	if c.Example != "" {
		p.section("EXAMPLES")
		p.text(c.Example)
	}
	p.seeAlso(c)
	return p.String()
}

// A manWriter writes a page in man(7).
type manWriter struct{ strings.Builder }

func (p *manWriter) section(title string) { p.WriteString(".SH " + title + "\n") }

// line writes a line of text that is escaped already. A line must not begin like a request.
func (p *manWriter) line(s string) {
	if strings.HasPrefix(s, ".") || strings.HasPrefix(s, "'") {
		s = `\&` + s
	}
	p.WriteString(s + "\n")
}

// text writes paragraphs. Indented lines keep their line breaks and spaces.
func (p *manWriter) text(s string) {
	literal, blank := false, false
	s = strings.ReplaceAll(s, "\t", "    ")
	for _, line := range strings.Split(strings.Trim(s, "\n"), "\n") {
		if strings.TrimSpace(line) == "" {
			blank = true
			continue
		}
		indented := strings.HasPrefix(line, "  ")
		if literal && !indented {
			p.WriteString(".EE\n")
		}
		switch {
		case blank && literal && indented:
			p.WriteString("\n")
		case blank:
			p.WriteString(".PP\n")
		}
		if indented && !literal {
			p.WriteString(".EX\n")
		}
		literal, blank = indented, false
		p.line(roff(line))
	}
	if literal {
		p.WriteString(".EE\n")
	}
}

// commands lists the commands of a group.
func (p *manWriter) commands(c *cobra.Command) {
	if !c.HasAvailableSubCommands() {
		return
	}
	p.section("COMMANDS")
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() {
			p.WriteString(".TP\n")
			p.line(`\fB` + roff(pageName(sub)) + `\fR(1)`)
			p.line(roff(sub.Short))
		}
	}
}

func (p *manWriter) flags(title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.section(title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		value, usage := pflag.UnquoteUsage(f)
		name := `\fB` + roff("--"+f.Name) + `\fR`
		if f.Shorthand != "" {
			name = `\fB` + roff("-"+f.Shorthand) + `\fR, ` + name
		}
		if value != "" {
			name += ` \fI` + roff(value) + `\fR`
		}
		if d := f.DefValue; d != "" && d != "false" && d != "0" && d != "[]" {
			usage += fmt.Sprintf(" (default %s)", d)
		}
		p.WriteString(".TP\n")
		p.line(name)
		p.line(roff(usage))
	})
}

// seeAlso names the page of the command that contains this one.
func (p *manWriter) seeAlso(c *cobra.Command) {
	if c.HasParent() {
		p.section("SEE ALSO")
		p.line(`\fB` + roff(pageName(c.Parent())) + `\fR(1)`)
	}
}

// roffEscapes replaces the characters that roff interprets, or shows as typographic ones.
var roffEscapes = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, `"`, `\(dq`)

// roff escapes a text for a page.
func roff(s string) string {
	var ascii strings.Builder
	for _, r := range roffEscapes.Replace(s) {
		if r < 0x80 {
			ascii.WriteRune(r)
		} else {
			fmt.Fprintf(&ascii, `\[u%04X]`, r)
		}
	}
	return ascii.String()
}
