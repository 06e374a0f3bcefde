package main

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// jsonDoc is the path of the documentation of the commands' JSON.
var jsonDoc = filepath.Join("..", "..", "docs", "json.md")

// updateJSON is the environment variable that, if set, makes jsondoc write the output of the
// commands into the documentation, as examples.
const updateJSON = "PEERLINK_UPDATE_JSON"

// jsonSection matches a section of the documentation: the name of the command, the example, and the
// line of what is not always there.
var jsonSection = regexp.MustCompile("(?ms)^## `peerlink ?([a-zA-Z -]*)`\n(.*?)^```json\n(.*?)^```\n(?:\n^Not always there: (.*?)\\.$)?")

// jsondoc COMMAND checks that the standard output of the last command has exactly the fields that the
// documentation of its JSON has.
func jsondoc(ts *testscript.TestScript, neg bool, args []string) {
	name := strings.Join(args, " ")
	doc, err := os.ReadFile(jsonDoc)
	ts.Check(err)
	got := strings.ReplaceAll(ts.ReadFile("stdout"), ts.Getenv("WORK"), "/srv")
	if os.Getenv(updateJSON) != "" {
		ts.Check(os.WriteFile(jsonDoc, []byte(replaceExample(string(doc), name, got)), 0o644))
		return
	}
	for _, m := range jsonSection.FindAllStringSubmatch(string(doc), -1) {
		if m[1] == name {
			ts.Check(compareFields(got, m[3], m[4]))
			return
		}
	}
	ts.Fatalf("docs/json.md has no section of %q", name)
}

// replaceExample replaces the example of a command by an output, unless that has fewer fields.
func replaceExample(doc, name, output string) string {
	return jsonSection.ReplaceAllStringFunc(doc, func(section string) string {
		m := jsonSection.FindStringSubmatch(section)
		old, _ := fields(m[3])
		found, err := fields(output)
		if m[1] != name || err != nil || len(found) < len(old) {
			return section
		}
		return strings.Replace(section, "```json\n"+m[3], "```json\n"+output, 1)
	})
}

// compareFields compares the fields of an output with those of an example. The optional ones may be
// missing in either.
func compareFields(output, example, optional string) error {
	got, err := fields(output)
	if err != nil {
		return err
	}
	want, err := fields(example)
	if err != nil {
		return fmt.Errorf("the example: %w", err)
	}
	for f := range got {
		if !want[f] && !strings.Contains(optional, "`"+f+"`") {
			return fmt.Errorf("the field %s is not documented:\n%s", f, output)
		}
	}
	for _, f := range slices.Sorted(maps.Keys(want)) {
		parent, _, _ := cutLast(f)
		if !got[f] && (parent == "" || got[parent]) && !strings.Contains(optional, "`"+f+"`") {
			return fmt.Errorf("the field %s is missing, and is not documented as one that is not always there:\n%s", f, output)
		}
	}
	return nil
}

func cutLast(path string) (parent, name string, ok bool) {
	i := strings.LastIndex(path, ".")
	if i < 0 {
		return "", path, false
	}
	return path[:i], path[i+1:], true
}

// fields returns the paths of all members of objects in JSON text. The elements of a list have the
// path of the list.
func fields(text string) (map[string]bool, error) {
	found := make(map[string]bool)
	var walk func(path string, v any)
	walk = func(path string, v any) {
		switch v := v.(type) {
		case map[string]any:
			for name, member := range v {
				to := strings.TrimPrefix(path+"."+name, ".")
				found[to] = true
				walk(to, member)
			}
		case []any:
			for _, element := range v {
				walk(path, element)
			}
		}
	}
	d := json.NewDecoder(strings.NewReader(text))
	for d.More() {
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, err
		}
		walk("", v)
	}
	return found, nil
}

// A field that is missing, or is not documented, is found, unless it is missing with the object that
// it is in, or documented as one that is not always there.
func TestCompareFields(t *testing.T) {
	const example = `[{"id": 1, "name": "x", "cert": {"serial": 1}}]`
	for output, want := range map[string]string{
		example:                              "",
		`[]`:                                 "id is missing",
		`[{"id": 1, "cert": {"serial": 1}}]`: "",
		`[{"id": 1, "name": ""}]`:            "",
		`[{"name": "", "cert": {}}]`:         "cert.serial is missing",
		`[{"id": 1, "new": 1}]`:              "new is not documented",
		`[{"id": 1, "cert": {"new": 1}}]`:    "cert.new is not documented",
		`[{`:                                 "unexpected EOF",
	} {
		err := compareFields(output, example, "`name`, `cert`")
		if fmt.Sprint(err) == "<nil>" != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %s", output, err, want)
		}
	}
}

// Every section of the documentation is compared with the output of the command in a script.
func TestJSONDocUsed(t *testing.T) {
	doc, err := os.ReadFile(jsonDoc)
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile("testdata/script/json.txtar")
	if err != nil {
		t.Fatal(err)
	}
	sections := jsonSection.FindAllStringSubmatch(string(doc), -1)
	if len(sections) < 30 {
		t.Errorf("only %d sections are found", len(sections))
	}
	for _, m := range sections {
		if !strings.Contains(string(script), strings.TrimSpace("jsondoc "+m[1])+"\n") {
			t.Errorf("json.txtar does not check the section of %q", m[1])
		}
	}
}
