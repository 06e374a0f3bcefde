package toml_test

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os/exec"
	"strings"
	"testing"

	"peerlink/internal/toml"
)

// Features that are new in TOML 1.1 are refused, with the line and the reason, and so are
// documents over the limits. Valid documents that look similar are not.
func TestRefused(t *testing.T) {
	for _, tt := range []struct{ doc, want string }{
		{"a = {b = 1,}", "line 1: a comma before }"},
		{"a = {b = 1, }", "a comma before }"},
		{"\n\na = {\n b = 1}", "line 3: a line may not end within { }"},
		{"a = {b = 1 # c\n}", "a line may not end within { }"},
		{"a = \"\"\"\n\n\"\"\"\nb = \"\\e\"", "line 4: the escape sequences"},
		{"a = \"\"\"\\x41\"\"\"", "the escape sequences"},
		{"\"\\x41\" = 1", "the escape sequences"},
		{"a = 07:32", "a time without seconds"},
		{"a = 1979-05-27 07:32", "a time without seconds"},
		{"a = 1979-05-27T07:32Z", "a time without seconds"},
		{"a = [1979-05-27T07:32+01:00]", "a time without seconds"},
		{"a = [0000-12-31T07:32:00Z]", "year 0000"},
		{"\ufeffa = 1", "byte order mark"},
		{"\xff\xfea\x00", "byte order mark"},
		{"a = " + strings.Repeat("[", 17) + strings.Repeat("]", 17), "more than 16 deep"},
		{strings.Repeat("a.", 99) + "a = 1", "more than 20 keys"},
		{"a: 1", "line 1"},
		{"a = 1\nb = {}\n[b.c]", "line 3"},
		{"a = 1\na = 2", "line 2"},
		{"a = 1\r", "line 1"},
		{"é = 1", "line 1"},
	} {
		var v map[string]any
		if err := toml.Unmarshal([]byte(tt.doc), &v, 20); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: error is %v, want %q", tt.doc, err, tt.want)
		}
	}
	for _, doc := range []string{
		"a = {b = [1,\n2,\n], c = {}}", "a = [1,2,] # }", "a = {b = [1,]}", "a = ',}'", "a = {b = \"\\\"{\\n\"}", "a = '\\e'", "a = '''\\x'''", "a = \"\\\\e\"",
		"a = \"\"\"\"\"\"\"\" # \\e", "a = '''''''' # {\n#", "a = '''{\n'''", "# {\na = 1", "a = 1979-05-27 07:32:00.5+01:00\r\n", "a = 07:32:00", "\"07:32\" = '07:32'",
		"a = " + strings.Repeat("[", 16) + strings.Repeat("]", 16),
	} {
		var v map[string]any
		if err := toml.Unmarshal([]byte(doc), &v, 20); err != nil {
			t.Errorf("%q: %v", doc, err)
		}
	}
}

// pieces are combined to documents for [TestAgainstPython].
var pieces = []string{
	"a", "b", "a.b", "\"c\"", "'d'", " = ", "=", "\n", "\n", "\n", "\r\n", "\r", "[", "]", "[[", "]]", "{", "}", ",", ".", " ", "\t", "#", "\"", "'", "\"\"\"", "'''",
	"1", "-1", "+1", "01", "1_0", "1__0", "0x1F", "0b2", "0o7", "1.5", "1e5", "1.e5", ".5", "inf", "nan", "-inf", "true", "false", "True",
	"\\", "\\n", "\\e", "\\x41", "\\u0041", "\\U0001F511", "\\uD800", "\\ ", "\\\n", "x", "é", "\x00", "\x7f", "\x1b", "\ufeff",
	"1979-05-27", "07:32", "07:32:00", "1979-05-27T07:32:00Z", "1979-05-27 07:32:00.5", "1979-05-27T07:32+01:00", "T", "Z", "-", ":00",
	"a = 1\n", "[t]\n", "[t.u]\n", "[[v]]\n", "t.u = 1\n", "b = {c = 1}\n", "d = [1, 2]\n", "e = \"x\"\n", "f = '''\n'''\n", "a.b = {c.d = [{}]}\n",
}

const pythonScript = `
import json, sys
try:
    import tomllib
except ImportError:
    print("none"); sys.exit()
def ok(doc):
    try:
        tomllib.loads(doc); return True
    except tomllib.TOMLDecodeError:
        return False
print(json.dumps([ok(d) for d in json.load(sys.stdin)]))`

// Every document that is accepted here is accepted by the parser of Python's library,
// which the reference uses, so that no document is signed that other nodes cannot read.
func TestAgainstPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("python3 is not installed")
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	var read []string
	for range 60_000 {
		var b strings.Builder
		if rnd.IntN(2) == 0 {
			b.WriteString("k = ")
		}
		for range 1 + rnd.IntN(8) {
			b.WriteString(pieces[rnd.IntN(len(pieces))])
		}
		var v map[string]any
		if toml.Unmarshal([]byte(b.String()), &v, 100) == nil {
			read = append(read, b.String())
		}
	}
	docs, err := json.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(python, "-c", pythonScript)
	cmd.Stdin = bytes.NewReader(docs)
	out, err := cmd.Output()
	if err != nil {
		t.Fatal(err)
	}
	if strings.TrimSpace(string(out)) == "none" {
		t.Skip("python3 has no tomllib, which came with 3.11")
	}
	var ok []bool
	if err := json.Unmarshal(out, &ok); err != nil || len(ok) != len(read) {
		t.Fatal(err, len(ok))
	}
	refused := 0
	for i, doc := range read {
		if !ok[i] {
			if refused++; refused <= 30 {
				t.Errorf("accepted here, but not by Python: %q", doc)
			}
		}
	}
	t.Logf("%d documents were accepted, %d of them not by Python", len(read), refused)
}
