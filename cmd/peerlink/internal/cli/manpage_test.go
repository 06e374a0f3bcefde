package cli

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// page returns the page of a command with the given texts.
func page(long, example string) string {
	c := &cobra.Command{Use: "x", Short: "Short text", Long: long, Example: example, Run: func(*cobra.Command, []string) {}}
	return manPage(c, "2026-01-01")
}

// Texts are not taken for requests or escapes of roff, and indented lines keep their breaks.
func TestManPage(t *testing.T) {
	got := page("One <ID> of it:\n\n  .a line\n  next \\n\n\n  after\n\nEnd.\n'quoted' `x` – 銀", "  peerlink x\n\ty")
	want := ".SH DESCRIPTION\n" +
		"One <ID> of it:\n.PP\n.EX\n  .a line\n  next \\en\n\n  after\n.EE\n.PP\nEnd.\n" +
		"\\(aqquoted\\(aq \\(gax\\(ga \\[u2013] \\[u9280]\n" +
		".SH OPTIONS\n"
	if !strings.Contains(got, want) {
		t.Errorf("%s\nwant\n%s", got, want)
	}
	if !strings.Contains(got, ".SH EXAMPLES\n.EX\n  peerlink x\n    y\n.EE\n") {
		t.Error(got)
	}
	for _, line := range []string{".SH x", "'br"} {
		if got := page(line, ""); !strings.Contains(got, "\n\\&.SH x\n") && !strings.Contains(got, "\n\\(aqbr\n") {
			t.Errorf("%q is a request in\n%s", line, got)
		}
	}
}

// overstrike matches what makes a character bold or underlined in the output of mandoc.
var overstrike = regexp.MustCompile(".\b")

// mandoc has no warning about any page, and shows every line of the help: those that are indented as
// they are, the others with other line breaks.
func TestManPagesWithMandoc(t *testing.T) {
	mandoc, err := exec.LookPath("mandoc")
	if err != nil {
		t.Skip("mandoc is not installed: the man pages are not checked with it")
	}
	dir := t.TempDir()
	root := (&app{}).root()
	all := leaves(root)
	if err := writePages(root, dir, pageDate()); err != nil {
		t.Fatal(err)
	}
	pages, err := filepath.Glob(filepath.Join(dir, "*.1"))
	if err != nil || len(pages) < 40 {
		t.Fatalf("%d pages, %v", len(pages), err)
	}
	if out, err := exec.Command(mandoc, append([]string{"-T", "lint", "-W", "warning"}, pages...)...).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("mandoc: %v\n%s", err, out)
	}
	for name, c := range all {
		if c.Hidden || name == "help" {
			continue
		}
		file := filepath.Join(dir, pageName(c)+".1")
		if _, err := os.Stat(file); err != nil {
			t.Errorf("%q has no page: %v", name, err)
			continue
		}
		out, err := exec.Command(mandoc, "-T", "utf8", "-O", "width=200", file).Output()
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		checkShown(t, name, c.Long+"\n"+c.Example, string(overstrike.ReplaceAll(out, nil)))
	}
}

// checkShown checks that a page shows the text.
func checkShown(t *testing.T, name, text, page string) {
	t.Helper()
	words := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	flowing := words(page)
	for _, line := range strings.Split(strings.ReplaceAll(text, "\t", "    "), "\n") {
		line = strings.TrimRight(line, " ")
		switch {
		case strings.HasPrefix(line, "  ") && !strings.Contains(page, line+"\n"):
			t.Errorf("%s: the line is missing or broken:\n%s\n%s", name, line, page)
		case !strings.Contains(flowing, words(line)):
			t.Errorf("%s: the text is missing:\n%s\n%s", name, line, bytes.TrimSpace([]byte(page)))
		}
	}
}
