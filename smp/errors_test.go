package smp

import (
	"errors"
	"strings"
	"testing"
)

// Invariant: an error names what is wrong, what it is, and what was expected.
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
		{[]byte(`{"type": 'x'}`),
			"invalid PrepareTransfer: body is not valid JSON: expected a value at byte 9"},
	} {
		if _, err := send(PrepareTransfer, c.body); err == nil || err.Error() != c.want {
			t.Errorf("error is\n%v, expected\n%s", err, c.want)
		}
	}
}

// Invariant: the text of an error is one line of bounded length whatever was
// received, and gives away nothing of what belongs to the users.
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
					t.Errorf("%s, %s: error tells %q", typ, name, err)
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
	if !errors.As(err, &e) || e.Kind == nil || e.Detail == "" {
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
