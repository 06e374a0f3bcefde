package node_test

import (
	"fmt"
	"strings"
	"testing"

	"peerlink/internal/costtest"
	"peerlink/node"
)

// fill calls line with 0, 1, … and joins the results, up to 64 KiB between the given
// beginning and end.
func fill(begin string, line func(i int) string, end string) string {
	var b strings.Builder
	b.WriteString(begin)
	for i := 0; ; i++ {
		s := line(i)
		if b.Len()+len(s)+len(end) > 64<<10 {
			return b.String() + end
		}
		b.WriteString(s)
	}
}

// hostileTOML are documents of up to 64 KiB, with structures that are expensive to parse.
func hostileTOML() map[string]string {
	repeated := func(begin, s, end string) string { return fill(begin, func(int) string { return s }, end) }
	docs := map[string]string{
		"deep key":                repeated("", "a.", "a=1"),
		"deep table":              repeated("[", "a.", "a]"),
		"deep array of tables":    repeated("[[", "a.", "a]]"),
		"deep arrays":             "a=" + strings.Repeat("[", 32000) + strings.Repeat("]", 32000),
		"deep arrays, unclosed":   repeated("a=", "[", ""),
		"deep arrays in a known":  "info-bundle-urls=" + strings.Repeat("[", 32000) + strings.Repeat("]", 32000),
		"deep inline tables":      "a=" + strings.Repeat("{a=", 15000) + "1" + strings.Repeat("}", 15000),
		"deep, unclosed tables":   repeated("a=", "{a=", ""),
		"arrays in an array":      repeated("a=[", "[],", "]"),
		"tables in an array":      repeated("a=[", "{},", "]"),
		"arrays in a known":       repeated("info-bundle-urls=[", "[],", "]"),
		"tables in a known":       repeated("info-bundle-urls=[", "{},", "]"),
		"strings in a known":      repeated("info-bundle-urls=[", "'',", "]"),
		"servers":                 repeated("servers=[", "'',", "]"),
		"numbers as servers":      repeated("servers=[", "1,", "]"),
		"wide inline table":       fill("a={", func(i int) string { return fmt.Sprintf("k%x=1,", i) }, "z=1}"),
		"flat keys":               fill("", func(i int) string { return fmt.Sprintf("k%x=1\n", i) }, ""),
		"quoted keys":             fill("", func(i int) string { return fmt.Sprintf("'%x'=1\n", i) }, ""),
		"tables":                  fill("", func(i int) string { return fmt.Sprintf("[k%x]\n", i) }, ""),
		"arrays of tables":        repeated("", "[[a]]\n", ""),
		"tables in arrays":        repeated("", "[[a]]\n[[a.b]]\n", ""),
		"keys with one beginning": fill("", func(i int) string { return fmt.Sprintf("a.a.a.a.k%x=1\n", i) }, ""),
		"the same key":            repeated("", "a=1\n", ""),
		"long string":             repeated("a='", "x", "'"),
		"escapes":                 repeated("a=\"", `\u0041`, "\""),
		"multi-line string":       repeated("a='''", "\n", "'''"),
		"placeholders":            repeated("host=\"", "${NODE_ID}", "\""),
		"comments":                repeated("", "#\n", ""),
		"line ends":               repeated("", "\n", ""),
		"NULs":                    repeated("", "\x00", ""),
		"quotation marks":         repeated("", "\"", ""),
		"minus signs":             repeated("a=", "-", ""),
		"digits":                  repeated("a=", "9", ""),
		"underscores":             repeated("a=", "1_", "1"),
		"commas":                  repeated("a=[", ",", "]"),
		"dots":                    repeated("a=", "1.", "1"),
		"colons":                  repeated("a=", "00:00:", "00"),
	}
	for _, depth := range []int{4, 14, 15, 16, 60, 1000} {
		for what, part := range map[string][3]string{
			"keys":          {"", ".a", "=1\n"},
			"quoted keys":   {"", ".''", "=1\n"},
			"tables":        {"[", ".a", "]\n"},
			"inline tables": {"", "={a", "=1" + strings.Repeat("}", depth) + "\n"},
			"arrays":        {"", "=[", strings.Repeat("]", depth) + "\n"},
		} {
			docs[fmt.Sprintf("%s, %d deep", what, depth)] = fill("", func(i int) string {
				nested := strings.Repeat(part[1], depth)
				if what == "arrays" {
					nested = "=" + strings.Repeat("[", depth)
				}
				return fmt.Sprintf("%sk%x%s%s", part[0], i, nested, part[2])
			}, "")
		}
	}
	return docs
}

// Parsing a stomp.toml needs little memory and time, even if its content is malicious.
func TestStompTOMLCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	const good = "servers=['a:1']\nhost='/'\ndestination='/x'\n"
	for name, doc := range hostileTOML() {
		for _, doc := range []string{doc, good + doc[:min(len(doc), 64<<10-len(good))]} {
			costtest.Check(t, name, func() { node.ParseStompTOML([]byte(doc), strings.Repeat("f", 32)) })
		}
	}
}
