package smp

import (
	"errors"
	"strings"
	"testing"
)

// Invariant: an error has the invalid field, its value, and what was expected.
func TestErrorTexts(t *testing.T) {
	s := samples(t)[PrepareTransfer]
	for _, c := range []struct {
		body []byte
		want string
	}{
		{s.with("max_locked_amount", "-1").body(),
			"invalid PrepareTransfer: max_locked_amount is -1, expected an integer from 0 to 9223372036854775807"},
		{s.with("recipient", "").body(),
			"invalid PrepareTransfer: recipient is missing, expected a string of 0 to 100 ASCII characters"},
		{s.with("recipient", `"`+strings.Repeat("é", 60)+`"`).body(),
			`invalid PrepareTransfer: recipient is "` + strings.Repeat(`\u00e9`, 20) + `"... (120 bytes), expected a string of 0 to 100 ASCII characters`},
		{s.with("type", `"AccountPurge"`).body(),
			`invalid PrepareTransfer: type is "AccountPurge", expected "PrepareTransfer", as the message's header says`},
		{s.with("ts", `[]`).body(),
			"invalid PrepareTransfer: ts is an array, expected a timestamp with an offset, such as 2023-01-01T12:00:00+00:00"},
		{s.with("recipient", `"`+strings.Repeat("é", 20)+`"`).body(), // the maximum that is quoted
			`invalid PrepareTransfer: recipient is "` + strings.Repeat(`\u00e9`, 20) + `", expected a string of 0 to 100 ASCII characters`},
		{s.with("max_locked_amount", strings.Repeat("1", 40)).body(), // likewise
			"invalid PrepareTransfer: max_locked_amount is " + strings.Repeat("1", 40) + ", expected an integer from 0 to 9223372036854775807"},
		{s.with("max_locked_amount", strings.Repeat("1", 41)).body(),
			"invalid PrepareTransfer: max_locked_amount is " + strings.Repeat("1", 40) + "... (41 digits), expected an integer from 0 to 9223372036854775807"},
		{[]byte(`{"type": 'x'}`),
			"invalid PrepareTransfer: body is not valid JSON: expected a value at byte 9"},
		{[]byte("{\"type\": \"\ufffdé\xff\"}"),
			"invalid PrepareTransfer: body is not valid JSON: expected UTF-8 at byte 15"},
		{[]byte(`{"type": "PrepareTransfer", "x": true`),
			`invalid PrepareTransfer: body is not valid JSON: expected "," or "}" at byte 37`},
		{[]byte(`{"type": "\`),
			"invalid PrepareTransfer: body is not valid JSON: expected a closing quote at byte 10"},
		{[]byte(`{"type": "\u0041`),
			"invalid PrepareTransfer: body is not valid JSON: expected a closing quote at byte 16"},
		{[]byte(`{"type": "\u12`),
			`invalid PrepareTransfer: body is not valid JSON: expected "\u" and four hexadecimal digits, surrogates in pairs only, at byte 10`},
	} {
		if _, err := send(PrepareTransfer, c.body); err == nil || err.Error() != c.want {
			t.Errorf("error is\n%v, expected\n%s", err, c.want)
		}
	}
	for _, c := range []struct{ typ, field, want string }{
		{ConfigureAccount, "negligible_amount", "a finite number of at least 0"},
		{AccountUpdate, "interest", "a finite number"},
		{AccountUpdate, "interest_rate", "a finite number of at least -100"},
		{AccountUpdate, "demurrage_rate", "a number from -100 to 0"},
	} {
		body := samples(t)[c.typ].with(c.field, "[]").body()
		_, err := send(c.typ, body)
		if want := "invalid " + c.typ + ": " + c.field + " is an array, expected " + c.want; err == nil || err.Error() != want {
			t.Errorf("error is\n%v, expected\n%s", err, want)
		}
	}
}

// Invariant: the text of an error is one line of bounded length for any input, and has
// nothing that is private to users.
func TestErrorsAreHarmless(t *testing.T) {
	const secret = "secret"
	long := `"` + secret + strings.Repeat(`\u0001`, 1200) + `"`
	number := strings.Repeat("1", 5000)
	for typ, s := range samples(t) {
		for name := range s {
			for _, literal := range []string{long, number, `"` + number + `"`, "[" + long + "]", "1\n2"} {
				_, err := send(typ, s.with(name, literal).body())
				if literal == long && err == nil && (name == "config_data") {
					continue // 1,206 bytes are allowed
				}
				checkHarmless(t, err)
				private := name == "config_data" || name == "transfer_note" || name == "debtor_info_iri"
				if err != nil && private && strings.Contains(err.Error(), secret) {
					t.Errorf("%s, %s: the error %q contains the secret", typ, name, err)
				}
			}
		}
	}
	for _, header := range []string{number, "\xff\n\x00", strings.Repeat("é\n", 1000)} {
		_, err := open(PrepareTransfer).Outgoing(header, ContentType, nil)
		checkHarmless(t, err)
		_, err = open(PrepareTransfer).Outgoing(PrepareTransfer, header, nil)
		checkHarmless(t, err)
	}
}

// checkHarmless fails the test unless err is a well-formed *Error.
func checkHarmless(t *testing.T, err error) {
	t.Helper()
	var e *Error
	if !errors.As(err, &e) || e.kind == nil || e.Detail == "" {
		t.Fatalf("error is %#v, expected an *Error with a kind and a detail", err)
	}
	if e.Type != "" && schemaOf(e.Type) == nil {
		t.Errorf("error has type %q", e.Type)
	}
	text := err.Error()
	if len(text) > 400 {
		t.Errorf("error has %d bytes: %.500q", len(text), text)
	}
	for _, c := range []byte(text) {
		if c < ' ' || c > '~' {
			t.Errorf("error is not printable ASCII: %q", text)
			break
		}
	}
}
