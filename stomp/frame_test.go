package stomp

import (
	"errors"
	"strings"
	"testing"
)

// Frames are written as STOMP 1.2 specifies, and readers find the end of the body.
func TestAppendFrame(t *testing.T) {
	tests := []struct {
		name  string
		frame *Frame
		want  string
	}{
		{"no body", NewFrame("RECEIPT", "receipt-id", "7"), "RECEIPT\nreceipt-id:7\n\n\x00"},
		{"body", &Frame{"SEND", []Header{{"type", "x"}}, []byte("a\x00")}, "SEND\ntype:x\ncontent-length:2\n\na\x00\x00"},
		{"body that may be empty", NewFrame("SEND"), "SEND\ncontent-length:0\n\n\x00"},
		{"length is given", &Frame{"ERROR", []Header{{"content-length", "01"}}, []byte("a")}, "ERROR\ncontent-length:01\n\na\x00"},
		{"escapes", NewFrame("ACK", "a:b", "\r\n\\:"), "ACK\na\\cb:\\r\\n\\\\\\c\n\n\x00"},
		{"escapes in STOMP too", NewFrame("STOMP", "passcode", "a:b"), "STOMP\npasscode:a\\cb\n\n\x00"},
		{"every letter", NewFrame("ABCDEFGHIJKLMNOPQRSTUVWXYZ"), "ABCDEFGHIJKLMNOPQRSTUVWXYZ\n\n\x00"},
		{"a name without a value", NewFrame("ACK", "id"), "ACK\nid:\n\n\x00"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := appendFrame([]byte("before"), tt.frame)
			if err != nil {
				t.Fatal(err)
			}
			if string(b) != "before"+tt.want {
				t.Errorf("got  %q\nwant %q", b, "before"+tt.want)
			}
		})
	}
}

// A frame that violates the rules is refused before anything is appended.
func TestAppendFrameRefuses(t *testing.T) {
	tests := []struct {
		name   string
		frame  *Frame
		reason string
	}{
		{"no command", &Frame{}, "not a command"},
		{"small letters", NewFrame("send"), "not a command"},
		{"the character before A", NewFrame("@"), "not a command"},
		{"the character after Z", NewFrame("["), "not a command"},
		{"two commands", NewFrame("SEND\n\n\x00SEND"), "not a command"},
		{"header without a name", NewFrame("SEND", "", "x"), "without a name"},
		{"name is not UTF-8", NewFrame("SEND", "\xff", "x"), "not valid UTF-8"},
		{"value is not UTF-8", NewFrame("SEND", "x", "\xff"), "not valid UTF-8"},
		{"wrong length", &Frame{"SEND", []Header{{"content-length", "3"}}, []byte("ab")}, "content-length of SEND"},
		{"length is no number", NewFrame("SEND", "content-length", "-0"), "content-length of SEND"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			b, err := appendFrame([]byte("before"), tt.frame)
			if !errors.Is(err, ErrUnsendable) || !strings.Contains(err.Error(), tt.reason) {
				t.Errorf("got error %v, want ErrUnsendable with %q", err, tt.reason)
			}
			if string(b) != "before" {
				t.Errorf("appended %q", b)
			}
		})
	}
}

// Get returns the first value of a repeated header.
func TestGet(t *testing.T) {
	f := NewFrame("SEND", "a", "1", "b", "", "a", "2")
	for name, want := range map[string]struct {
		value string
		ok    bool
	}{"a": {"1", true}, "b": {"", true}, "c": {"", false}} {
		if v, ok := f.Get(name); v != want.value || ok != want.ok {
			t.Errorf("%s: got %q, %v, want %q, %v", name, v, ok, want.value, want.ok)
		}
	}
}

// An ERROR can always be sent, however long or invalid its content is. The message is
// shortened between characters, and everything else is complete or missing.
func TestErrorFrameFits(t *testing.T) {
	long := strings.Repeat("x", 501)
	for _, e := range []ServerError{
		{},
		{Message: long, ReceiptID: long, Type: long, ContentType: long, Body: make([]byte, 8193)},
		{Message: strings.Repeat("\n", 300), Body: make([]byte, 8192)},
		{Message: strings.Repeat("é", 251), ReceiptID: "7", Type: "t", ContentType: "c"},
		{Message: "\xff", ReceiptID: "\xff"},
		{Message: strings.Repeat(":", 250), ReceiptID: strings.Repeat(":", 250), Type: strings.Repeat(":", 250), ContentType: strings.Repeat(":", 250)},
	} {
		b, err := appendFrame(nil, e.frame(encoder{Limits: DefaultLimits()}))
		if err != nil {
			t.Errorf("%+v: %v", e, err)
			continue
		}
		f, err := read(string(b))
		if err != nil {
			t.Errorf("%+v: %v", e, err)
			continue
		}
		got := serverErrorFrom(f)
		if want := strings.ToValidUTF8(e.Message, "\uFFFD"); !strings.HasPrefix(want, got.Message) || len(want) <= 250 && got.Message != want {
			t.Errorf("message %q became %q", e.Message, got.Message)
		}
		for _, s := range [][2]string{{e.ReceiptID, got.ReceiptID}, {e.Type, got.Type}, {e.ContentType, got.ContentType}} {
			if s[1] != "" && s[1] != s[0] {
				t.Errorf("%q became %q", s[0], s[1])
			}
		}
		want := len(e.Body)
		if want > 8192 {
			want = 0
		}
		if len(got.Body) != want {
			t.Errorf("body of %d bytes became %d, want %d", len(e.Body), len(got.Body), want)
		}
	}
}

// In STOMP 1.0, which has no escapes, a header with a line end is never written, since it would
// become several headers; an ERROR is written nevertheless, with its message in one line.
func TestHeadersWithoutEscapes(t *testing.T) {
	raw := encoder{Limits: DefaultLimits(), raw: true}
	for _, f := range []*Frame{NewFrame("MESSAGE", "a", "b\nc:d"), NewFrame("MESSAGE", "a", "b\r"), NewFrame("MESSAGE", "a:b", "c"), NewFrame("MESSAGE", "a\nb", "c")} {
		if b, err := raw.appendFrame(nil, f); !errors.Is(err, ErrUnsendable) {
			t.Errorf("%v is written as %q", f.Headers, b)
		}
	}
	e := &ServerError{Message: "one\r\ntwo: \\n", ReceiptID: `a:b\c`}
	b, err := raw.appendFrame(nil, e.frame(raw))
	if want := "ERROR\nmessage:one  two: \\n\nreceipt-id:a:b\\c\ncontent-length:0\n\n\x00"; err != nil || string(b) != want {
		t.Errorf("got %q, %v, want %q", b, err, want)
	}
}
