package kustomize

import (
	"bytes"
	"errors"
	"fmt"
	"path"
	"regexp"
	"strings"

	"peerlink/internal/excerpt"
)

// errAggregator is returned if a peer cannot be added to peers/kustomization.yaml (the aggregator)
// without the risk of damaging its other content.
var errAggregator = errors.New("cannot add the peer to a file of this form")

const newAggregator = `# The node's peers. Each is added to the resources when it is registered. Entries
# of your own may stand among them, and settings above them; they stay.
apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
resources:
- %s/
`

// placeholder is the content, without comments, of the reference scripts' placeholder for the
// aggregator. It generates a ConfigMap that is not meant to be deployed.
const placeholder = `apiVersion: kustomize.config.k8s.io/v1beta1
kind: Kustomization
configMapGenerator:
- name: dummy-configmap
literals:
- foo=bar
`

// isPlaceholder reports whether an aggregator is the placeholder, and nothing else.
func isPlaceholder(list []byte) bool {
	var b strings.Builder
	for line := range strings.Lines(string(list)) {
		if line = strings.TrimSpace(line); line != "" && line[0] != '#' {
			b.WriteString(line + "\n")
		}
	}
	return b.String() == placeholder
}

var (
	topLevelKey = regexp.MustCompile(`^([A-Za-z][A-Za-z0-9_-]*)[ \t]*:([ \t].*)?$`)
	listItem    = regexp.MustCompile(`^( *)- +(.*)$`)
)

// addPeer returns the content of an aggregator, list, with the peer added to its resources, unless
// the peer is one of them already. Nothing else is changed, unless list is the placeholder or has
// nothing but comments: then it is replaced as a whole. addPeer edits lines, because decoding
// and encoding would lose the comments and the order that an operator may have given the file. If
// the file does not have the usual form, in which a line without indentation begins a key or an
// item, the error wraps [errAggregator].
func addPeer(list []byte, id string) ([]byte, error) {
	newContent := fmt.Appendf(nil, newAggregator, id)
	if len(list) == 0 || isPlaceholder(list) {
		return newContent, nil
	}
	var s aggregatorScan
	lines := bytes.SplitAfter(list, []byte("\n"))
	for i, line := range lines {
		if err := s.parseLine(i, string(line), id); err != nil {
			return nil, fmt.Errorf("%w: line %d: %w", errAggregator, i+1, err)
		}
	}
	switch {
	case s.present:
		return list, nil
	case s.key == "":
		return newContent, nil // nothing but comments
	}
	eol := "\n"
	if bytes.HasSuffix(lines[0], []byte("\r\n")) {
		eol = "\r\n"
	}
	entry := fmt.Sprintf("%s- %s/%s", s.indent, id, eol)
	if !s.hasResources {
		s.lastLine, entry = len(lines)-1, "resources:"+eol+entry
	}
	var out bytes.Buffer
	for i, line := range lines {
		if i == s.emptyListLine && s.emptyList {
			line = []byte("resources:" + eol)
		}
		out.Write(line)
		if i == s.lastLine {
			if n := len(line); n > 0 && line[n-1] != '\n' {
				out.WriteString(eol)
			}
			out.WriteString(entry)
		}
	}
	return out.Bytes(), nil
}

// aggregatorScan is the state of parsing an aggregator line by line. Lines are counted from 0.
type aggregatorScan struct {
	key           string // the top-level key of the current line
	hasResources  bool   // there is a resources key
	emptyList     bool   // the resources key is "resources: []"
	emptyListLine int    // the line of "resources: []"
	lastLine      int    // the line of the last resource, or of the key if there are no resources
	items         int    // number of resources so far
	indent        string // indentation of the resources
	present       bool   // the peer is one of the resources
}

func (s *aggregatorScan) parseLine(i int, line, id string) error {
	line = strings.TrimRight(line, " \t\r\n")
	switch text := strings.TrimLeft(line, " \t"); {
	case text == "" || text[0] == '#':
		return nil
	case line == "---" && s.key == "":
		return nil
	case text == line && text != "-" && !strings.HasPrefix(text, "- "):
		return s.parseTopLevel(i, line)
	case s.key == "":
		return errors.New("expected a key, such as \"resources:\"")
	case s.key == "resources":
		return s.parseResource(i, line, id)
	}
	return nil
}

func (s *aggregatorScan) parseTopLevel(i int, line string) error {
	m := topLevelKey.FindStringSubmatch(line)
	if m == nil {
		return fmt.Errorf("expected a key, such as \"resources:\", not %q", excerpt.Of(line))
	}
	s.key = m[1]
	if s.key != "resources" {
		return nil
	}
	if s.hasResources {
		return errors.New("a second list of resources")
	}
	s.hasResources, s.lastLine = true, i
	switch value := uncomment(m[2]); value {
	case "":
	case "[]":
		s.emptyList, s.emptyListLine = true, i
	default:
		return fmt.Errorf("resources are %q: expected a list with each resource on a line of its own", excerpt.Of(value))
	}
	return nil
}

func (s *aggregatorScan) parseResource(i int, line, id string) error {
	m := listItem.FindStringSubmatch(line)
	if m == nil || s.emptyList || s.items > 0 && m[1] != s.indent {
		return fmt.Errorf("expected one resource, such as \"- folder/\", not %q", excerpt.Of(line))
	}
	s.indent, s.lastLine = m[1], i
	s.items++
	s.present = s.present || path.Clean(unquote(uncomment(m[2]))) == id
	return nil
}

// uncomment removes a comment from the end of a line, and white space.
func uncomment(s string) string {
	if i := strings.Index(s, " #"); i >= 0 {
		s = s[:i]
	}
	return strings.TrimSpace(s)
}

// unquote removes quotation marks. It does not decode escapes, which entries of peers do not have.
func unquote(s string) string {
	if n := len(s); n >= 2 && (s[0] == '"' || s[0] == '\'') && s[n-1] == s[0] {
		return s[1 : n-1]
	}
	return s
}
