package link_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

var (
	// errorRow matches a row of a table in docs/errors.md, whose first cell is a text.
	errorRow = regexp.MustCompile("(?m)^\\| `([^`]+)` \\| [^|]{8,} \\| [^|]{4,} \\|$")
	// verb matches a formatting verb, which stands for a part of a text that differs.
	verb = regexp.MustCompile(`%(\[\d+\])?[-+# 0]*[\d*]*(\.(\d+|\*))?(\[\d+\])?[a-zA-Z]`)
)

// Every text that docs/errors.md quotes is one that the program can print: it is in a string of the source. Whoever
// changes an error changes the page too. Every row has a cause and a remedy.
func TestErrorsPage(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile(filepath.Join("..", "docs", "errors.md"))
	if err != nil {
		t.Fatal(err)
	}
	texts := sourceTexts(t)
	rows := errorRow.FindAllStringSubmatch(string(page), -1)
	if n := strings.Count(string(page), "\n| `"); len(rows) != n || n < 50 {
		t.Errorf("%d of %d rows have a text, a cause and a remedy, want all, and at least 50", len(rows), n)
	}
	for _, row := range rows {
		if !quotes(texts, row[1]) {
			t.Errorf("no string in the source has the text %q", row[1])
		}
	}
}

// quotes reports whether a text has the parts of quoted, between which "…" stands, in this order.
func quotes(texts []string, quoted string) bool {
	var parts []string
	for part := range strings.SplitSeq(quoted, "…") {
		parts = append(parts, regexp.QuoteMeta(part))
	}
	pattern := regexp.MustCompile(strings.Join(parts, ".*"))
	for _, text := range texts {
		if pattern.MatchString(text) {
			return true
		}
	}
	return false
}

// sourceTexts returns the strings in the source but for tests, with "…" in place of formatting verbs. Strings that are
// joined by + are one.
func sourceTexts(t *testing.T) (texts []string) {
	t.Helper()
	err := filepath.WalkDir("..", func(path string, e fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			e, ok := n.(ast.Expr)
			text := joined(e)
			if !ok || text == "" {
				return true
			}
			texts = append(texts, verb.ReplaceAllString(text, "…"))
			return false
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return texts
}

// joined returns the string that e is, or the strings that it joins with others; "" if it is something else.
func joined(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.BasicLit:
		if e.Kind == token.STRING {
			text, _ := strconv.Unquote(e.Value)
			return text
		}
	case *ast.BinaryExpr:
		if left, right := joined(e.X), joined(e.Y); e.Op == token.ADD && left+right != "" {
			return left + between(left, right) + right
		}
	}
	return ""
}

// between returns "…" if one of two joined expressions is no string.
func between(left, right string) string {
	if left == "" || right == "" {
		return "…"
	}
	return ""
}
