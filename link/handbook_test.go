package link_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var (
	markdownLink    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	markdownHeading = regexp.MustCompile(`(?m)^#{1,6} (.+)$`)
	fenced          = regexp.MustCompile("(?s)```.*?```")
	inlineCode      = regexp.MustCompile("`[^`\n]*`")
	notInAnchor     = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// handbook returns the pages in docs and the other documents that belong to them, by their paths from the root.
func handbook(t *testing.T) map[string]string {
	t.Helper()
	pages := make(map[string]string)
	for _, pattern := range []string{"*.md", "docs/*.md", "deploy/*/README.md"} {
		files, err := filepath.Glob(filepath.Join("..", pattern))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			name, _ := filepath.Rel("..", file)
			pages[filepath.ToSlash(name)] = fenced.ReplaceAllString(string(text), "")
		}
	}
	if len(pages) < 25 {
		t.Fatalf("only %d pages are there", len(pages))
	}
	return pages
}

// anchors returns the anchors of a page's headings, as GitHub and most other readers of Markdown make them.
func anchors(page string) map[string]bool {
	found := make(map[string]bool)
	for _, m := range markdownHeading.FindAllStringSubmatch(page, -1) {
		text := regexp.MustCompile(`\[([^]]*)\]\([^)]*\)`).ReplaceAllString(m[1], "$1")
		found[strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(text), ""), " ", "-")] = true
	}
	return found
}

// Every link between the pages of the handbook leads to a file and a section that exist.
func TestHandbookLinks(t *testing.T) {
	t.Parallel()
	pages := handbook(t)
	for name, page := range pages {
		for _, m := range markdownLink.FindAllStringSubmatch(inlineCode.ReplaceAllString(page, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			file, anchor, _ := strings.Cut(m[1], "#")
			target := name
			if file != "" {
				target = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
			}
			if _, err := os.Stat(filepath.Join("..", target)); err != nil {
				t.Errorf("%s: the link to %s: %v", name, m[1], err)
			} else if text, ok := pages[target]; anchor != "" && (!ok || !anchors(text)[anchor]) {
				t.Errorf("%s: the link to %s: there is no such section", name, m[1])
			}
		}
	}
}

// docs/README.md, the index of the handbook, has every page.
func TestHandbookIndex(t *testing.T) {
	t.Parallel()
	pages := handbook(t)
	for name := range pages {
		page, inDocs := strings.CutPrefix(name, "docs/")
		if inDocs && page != "README.md" && !strings.Contains(pages["docs/README.md"], "]("+page) {
			t.Errorf("the index does not have %s", page)
		}
	}
}
