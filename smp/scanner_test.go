package smp

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Invariant: exactly the texts that are JSON objects are accepted: any text after a valid
// message's members is accepted if and only if the standard library accepts it.
func TestObjectSyntax(t *testing.T) {
	s := samples(t)[AccountPurge]
	whole := string(s.body())
	for _, body := range []string{
		whole, " \t\r\n" + whole + " \t\r\n", whole + "x", whole + whole, whole + "{}", whole + ",", whole + "\x00",
		"", " ", "{", "}", "[]", "[" + whole + "]", "null", `"x"`, "1", "\ufeff" + whole, "\v" + whole,
		whole[:len(whole)-1], whole[:len(whole)-1] + ",}", "{," + whole[1:], whole[:len(whole)-1] + "]", whole[:len(whole)-1] + ";}",
		strings.Replace(whole, ",", ",,", 1), strings.Replace(whole, ",", "", 1), strings.Replace(whole, ":", "", 1),
		strings.Replace(whole, ":", "::", 1), strings.Replace(whole, `"`, `'`, 2), strings.Replace(whole, `"`, "", 2),
	} {
		_, err := send(AccountPurge, []byte(body))
		if json.Valid([]byte(body)) && strings.Contains(body, "creditor_id") && body[0] != '[' {
			if err != nil {
				t.Errorf("%s: %v", body, err)
			}
		} else if !errors.Is(err, errSyntax) {
			t.Errorf("%s: error is %v, expected an ErrSyntax", body, err)
		}
	}
	for _, value := range []string{
		"1", "-1", "0", "-0", "1.5", "1e5", "1E+5", "1e-5", "0.0e0", "123456789012345678901234567890",
		"", "-", "+1", "01", "-01", "1.", ".5", "1.e5", "1e", "1e+", "0x10", "1_0", "Infinity", "NaN", "-Infinity", "1 2", "1a",
		"true", "false", "null", "tru", "truex", "True", "nul", "undefined",
		`""`, `"\u0041"`, `"\b\f\n\r\t\/\\\""`, `"é😀"`, `"\ud83d\ude00"`, "\"\u2028\x7f\"", `"`, `"\"`, `"\x"`, `"\u12"`, `"\u12G4"`,
		"\"\t\"", "\"\n\"", "\"\x00\"", "\"\\\n\"", "\"a\\\x01\"", `"\u00411`, `"\`, `"\u`, "'x'",
		"[]", "[ ]", "[1]", "[1,2]", "[[],{}]", "[", "[1", "[1,", "[1,]", "[,1]", "[1 2]", "[1}", "]",
		"{}", "{ }", `{"a":1}`, `{"a":1,"a":{"b":[]}}`, "{", `{"a"`, `{"a":`, `{"a":1`, `{"a":1,`, `{"a":1,}`, `{,"a":1}`, "{1:1}", "{a:1}", `{"a" 1}`, `{"a":1]`, `{"a":}`,
		"/**/1", "1//",
	} {
		body := s.body(`"unknown": ` + value)
		want := error(nil)
		if !json.Valid(body) {
			want = errSyntax
		}
		if _, err := send(AccountPurge, body); !errors.Is(err, want) {
			t.Errorf("unknown property %s: error is %v, expected %v", value, err, want)
		}
	}
}

// Invariant: unknown properties are dropped, whatever their values; a known one must exist
// once, under its exact name.
func TestProperties(t *testing.T) {
	s := samples(t)[AccountPurge]
	plain, err := send(AccountPurge, s.body())
	if err != nil {
		t.Fatal(err)
	}
	for _, extra := range []string{
		`"x": {"a": [1, {"b": null}]}`, `"x": 1, "x": 2`, `"": 1`, `"Debtor_id": 1`, `"debtor_id ": 1`, `"debtor_i": 1`,
		`"config_flags": true`, `"debtor_\u0000id": 1`,
	} {
		if out, err := send(AccountPurge, s.body(extra)); err != nil || string(out) != string(plain) {
			t.Errorf("with %s: %s, %v", extra, out, err)
		}
	}
	for name := range s {
		escaped := fmt.Sprintf(`"\u%04x%s": %s`, name[0], name[1:], s[name])
		if out, err := send(AccountPurge, s.with(name, "").body(escaped)); err != nil || string(out) != string(plain) {
			t.Errorf("with %s: %s, %v", escaped, out, err)
		}
		for _, again := range []string{escaped, `"` + name + `": ` + s[name]} {
			var e *Error
			if _, err := send(AccountPurge, s.body(again)); !errors.As(err, &e) || e.kind != errField || e.Field != name {
				t.Errorf("%s given twice: %v", name, err)
			}
		}
	}
}

// Invariant: nesting is bounded, so that a peer cannot exhaust the stack.
func TestDepth(t *testing.T) {
	s := samples(t)[AccountPurge]
	for depth, want := range map[int]error{1: nil, maxDepth - 1: nil, maxDepth: errSyntax, 3000: errSyntax} {
		for _, pair := range []struct{ before, after string }{{"[", "]"}, {`{"a":`, "}"}} {
			body := s.body(`"x": ` + strings.Repeat(pair.before, depth) + "1" + strings.Repeat(pair.after, depth))
			if _, err := send(AccountPurge, body); !errors.Is(err, want) {
				t.Errorf("%d times %s: error is %v, expected %v", depth, pair.before, err, want)
			}
		}
	}
	if _, err := send(AccountPurge, []byte(strings.Repeat("[", 8000))); !errors.Is(err, errSyntax) {
		t.Errorf("error is %v, expected an ErrSyntax", err)
	}
}

// Invariant: text is not changed, escaped or not, and is written with no more escapes than
// JSON needs; text that is not Unicode is refused rather than changed.
func TestText(t *testing.T) {
	base := samples(t)[ConfigureAccount]
	for _, c := range []struct{ literal, want string }{
		{`"plain"`, `"plain"`},
		{`"жжж <>& 😀"`, `"жжж <>& 😀"`},
		{`"\u0436\ud83d\uDE00\u003c\/"`, `"ж😀</"`},
		{"\"\u2028\u2029\x7f\ufffd\"", "\"\u2028\u2029\x7f\ufffd\""},
		{`"\"\\\b\f\n\r\t"`, `"\"\\\b\f\n\r\t"`},
		{`"\u0022\u005c\u0008\u000c\u000a\u000d\u0009"`, `"\"\\\b\f\n\r\t"`},
		{`"a\u0000b\u001fc"`, `"a\u0000b\u001fc"`},
		{`"a\u0000"`, `"a\u0000"`},
		{`"\uD800"`, ""},
		{`"\ud800x"`, ""},
		{`"\ud800\u0041"`, ""},
		{`"\udc00\ud800"`, ""},
		{`"\ud800\ud800"`, ""},
		{"\"\xff\"", ""},
		{"\"\xc0\x80\"", ""},
		{"\"\xed\xa0\x80\"", ""},
		{"\"\xf4\x90\x80\x80\"", ""},
	} {
		out, err := send(ConfigureAccount, base.with("config_data", c.literal).body())
		if c.want == "" {
			if !errors.Is(err, errSyntax) {
				t.Errorf("%s: error is %v, expected an ErrSyntax", c.literal, err)
			}
			continue
		}
		var written map[string]json.RawMessage
		if err != nil || json.Unmarshal(out, &written) != nil || string(written["config_data"]) != c.want {
			t.Errorf("%s: written as %s, %v, expected %s", c.literal, written["config_data"], err, c.want)
		}
	}
}

// Invariant: the exact bytes of the output.
func TestWrittenForm(t *testing.T) {
	body := []byte(` { "ts" : "2023-1-1 12:00Z", "recipient" : "R", "x" : [ ], "final_interest_rate_ts" : "2023-01-01T12:00:00.5+02",
		"coordinator_request_id" : "-7" , "coordinator_id" : 6.0, "coordinator_type" : "direct", "creditor_id" : 6, "debtor_id" : 5,
		"min_locked_amount" : 0, "max_locked_amount" : 9223372036854775807, "max_commit_delay" : 8, "type" : "PrepareTransfer" } `)
	const want = `{"type":"PrepareTransfer","debtor_id":5,"creditor_id":6,"ts":"2023-01-01T12:00:00+00:00",` +
		`"coordinator_type":"direct","coordinator_id":6,"coordinator_request_id":-7,` +
		`"min_locked_amount":0,"max_locked_amount":9223372036854775807,"recipient":"R",` +
		`"final_interest_rate_ts":"2023-01-01T12:00:00.500000+02:00","max_commit_delay":8}`
	if out, err := send(PrepareTransfer, body); err != nil || string(out) != want {
		t.Errorf("written as\n%s, %v, expected\n%s", out, err, want)
	}
}
