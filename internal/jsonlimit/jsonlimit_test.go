package jsonlimit

import (
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"reflect"
	"strings"
	"testing"
	"time"

	"peerlink/internal/costtest"
)

// everything has a field of each kind that a value of JSON can be decoded into here.
type everything struct {
	Text     string            `json:"text"`
	Int      int64             `json:"int"`
	Uint     uint64            `json:"uint"`
	Float    float64           `json:"float"`
	Bool     bool              `json:"bool"`
	Time     time.Time         `json:"time"`
	Pointer  *time.Time        `json:"pointer"`
	Raw      json.RawMessage   `json:"raw"`
	Any      any               `json:"any"`
	Map      map[string]uint64 `json:"map"`
	Texts    []string          `json:"texts"`
	Children []everything      `json:"children"`
	Hidden   [100]uint64       `json:"-"`
	embedded
}

type embedded struct {
	Shallow []embeddedElement `json:"shallow"`
}

type embeddedElement struct {
	Times []time.Time `json:"times"`
}

// limit is how much decoding may allocate in these tests, and slack what measuring adds.
const (
	limit = 1 << 20
	slack = 64 << 10
)

// What is decoded is what encoding/json decodes.
func TestUnmarshal(t *testing.T) {
	for _, text := range []string{
		`{}`, `null`, ` { "text" : "a\u0041\n" , "int":-5,"uint":7,"float":-1.5e3,"bool":true,"unknown":[{"x":[1,"]"]}],"Other":{}} `,
		`{"time":"2026-05-01T12:00:00+01:30","pointer":"2026-05-01T12:00:00Z","raw": [1, {"a":2}],"any":{"a":[1,"b",null,{},[]],"c":true}}`,
		`{"map":{"a":1,"b":18446744073709551615},"texts":["a",null,"b"],"children":[{"children":[{},null]},{"text":"x"}],"shallow":[{"times":[]}]}`,
		`{"texts":["a","b"],"texts":["c"],"pointer":null,"children":[]}`,
	} {
		var got, want everything
		if err := json.Unmarshal([]byte(text), &want); err != nil {
			t.Fatal(err)
		}
		if err := Unmarshal([]byte(text), &got, limit); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: got %+v, %v, want %+v", text, got, err, want)
		}
	}
}

// A value of another type than expected is an error that says where it is, and so is a name that
// encoding/json would take for that of a field; text that is not JSON has the error of encoding/json.
func TestUnmarshalRefuses(t *testing.T) {
	for text, want := range map[string]string{
		`{"children":[""]}`: "a string at byte 15",
		`{"children":{}}`:   "an object at byte 12",
		`{"texts":[[]]}`:    "a list at byte 10",
		`{"map":[]}`:        "a list at byte 7",
		`{"time":{}}`:       "an object at byte 8",
		`{"text":1}`:        "another number",
		`{"int":1.5}`:       "another number",
		`{"uint":-1}`:       "another number",
		`{"float":1e999}`:   "another number",
		`{"any":1` + strings.Repeat("0", maxNumber) + `}`: "a long number",
		`{"bool":0}`:                  "another number",
		`{"int":true}`:                "true or false",
		`{"Texts":[]}`:                `the name "Texts"`,
		`{"text\u0073":[]}`:           "another spelling",
		`{"text` + "\u017f" + `":[]}`: "another spelling",
		`{"any":` + strings.Repeat("[", maxDepth+1) + strings.Repeat("]", maxDepth+1) + `}`: "in each other",
		`{"text":"`:    "unexpected end of JSON input",
		`{"text" "a"}`: "invalid character",
		`{"a":1}x`:     "invalid character",
		`{,}`:          "invalid character",
		``:             "unexpected end of JSON input",
	} {
		err := Unmarshal([]byte(text), new(everything), limit)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%.60s: %v, want %s", text, err, want)
		}
	}
}

// hostile returns texts of about the given size of which each costs as much as it can where it is
// decoded.
func hostile(size int) map[string]string {
	texts := make(map[string]string)
	for name, repeated := range map[string]string{
		"children": `{}`, "children ": `null`, "children  ": `""`, "children   ": `{"pointer":"2026-01-01T00:00:00Z"}`,
		"shallow": `{}`, "shallow ": `{"times":[null]}`, "shallow  ": `{"times":["2026-01-01T00:00:00+01:23"]}`,
		"texts": `""`, "texts ": `"a"`, "texts  ": `"\u0041"`, "texts   ": "\"\xff\"", "texts    ": "null",
		"any": `[]`, "any ": `{}`, "any  ": `1`, "any   ": `""`, "any    ": `{"":0}`, "any     ": `[[]]`, "any      ": `{"a":{"b":[0]}}`,
		"raw": `[]`, "text": "1", "int": "1",
	} {
		texts[name+repeated] = `{"` + strings.TrimSpace(name) + `":[` + strings.Repeat(repeated+",", size/(len(repeated)+1)) + repeated + "]}"
	}
	for name, repeated := range map[string]string{
		"overflow": `"int":99999999999999999999`, "wrong": `"int":""`, "unknown": `"A":0`, "long unknown": `"` + strings.Repeat("A", 40) + `":0`,
		"escaped": `"\u0041":0`, "raw": `"raw":0`, "pointer": `"pointer":"2026-01-01T00:00:00+01:23"`, "text": `"text":"a\n"`, "empty lists": `"texts":[]`,
		"one": `"children":[{}]`,
	} {
		texts[name] = "{" + strings.Repeat(repeated+",", size/(len(repeated)+1)) + repeated + "}"
	}
	keys := []byte(`{"map":{`)
	many := []byte(`{"any":{`)
	for i := 0; len(keys) < size; i++ {
		key := `"` + string([]byte{'a' + byte(i%26), 'a' + byte(i/26%26), 'a' + byte(i/676%26), 'a' + byte(i/17576%26)}) + `":0,`
		keys, many = append(keys, key...), append(many, key...)
	}
	texts["map"], texts["any map"] = string(keys)+`"":0}}`, string(many)+`"":0}}`
	texts["deep"] = `{"any":` + strings.Repeat("[", size/2) + strings.Repeat("]", size/2) + "}"
	texts["deep objects"] = `{"any":` + strings.Repeat(`{"":`, size/5) + "0" + strings.Repeat("}", size/5) + "}"
	texts["long string"] = `{"text":"` + strings.Repeat("\xff", size) + `"}`
	texts["open string"] = `{"text":"` + strings.Repeat("a", size)
	texts["number"] = `{"any":` + strings.Repeat("1", size) + "}"
	return texts
}

// Decoding never allocates more than permitted, for texts that would take far more, and for texts that take
// about as much.
func TestUnmarshalCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	for _, size := range []int{2 << 10, 16 << 10, 128 << 10, 8 << 20} {
		for name, text := range hostile(size) {
			data := []byte(text)
			costtest.CheckMemory(t, name, limit+slack, func() { _ = Unmarshal(data, new(everything), limit) })
			if size > 1<<20 {
				costtest.Check(t, name, func() { _ = Unmarshal(data, new(everything), limit) })
			}
		}
	}
}

// Whatever the text is, decoding allocates no more than permitted, and gives what encoding/json gives.
func FuzzUnmarshal(f *testing.F) {
	for _, text := range hostile(300) {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var got, want everything
		var err error
		costtest.CheckMemory(t, "the text", limit+slack, func() { got = everything{}; err = Unmarshal(text, &got, limit) })
		if err != nil {
			return
		}
		if err := json.Unmarshal(text, &want); err != nil {
			t.Fatalf("only encoding/json refuses it: %v", err)
		}
		// A list that is there twice keeps, in its spare capacity, what encoding/json would have moved.
		if a, b := encoded(t, got), encoded(t, want); a != b && !strings.Contains(string(text), "null") {
			t.Errorf("got %s, want %s", a, b)
		}
	})
}

func encoded(t *testing.T, v everything) string {
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A body may have as many bytes as permitted, and half as many without Content-Length; a longer one is an
// error, and is not cut off.
func TestReadBody(t *testing.T) {
	const max = 1 << 10
	for _, tt := range []struct {
		size    int
		chunked bool
		ok      bool
	}{{max, false, true}, {max + 1, false, false}, {max / 2, true, true}, {max/2 + 1, true, false}, {0, false, true}} {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			if tt.chunked {
				w.(http.Flusher).Flush()
			}
			w.Write(make([]byte, tt.size))
		}))
		defer s.Close()
		res, err := http.Get(s.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		body, err := ReadBody(res, max)
		if tt.ok != (err == nil) || tt.ok && len(body) != tt.size || !tt.ok && !errors.Is(err, ErrTooLarge) {
			t.Errorf("%+v: %d bytes, %v", tt, len(body), err)
		}
	}
}
