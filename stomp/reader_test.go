package stomp

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"testing/iotest"

	"peerlink/internal/costtest"
)

func read(s string) (*Frame, error) {
	return NewReader(strings.NewReader(s), Limits{}).ReadFrame()
}

// Everything that the grammar of STOMP 1.2 allows is read, with the meaning that the
// specification defines.
func TestReadFrame(t *testing.T) {
	tests := []struct {
		name, in string
		want     Frame
	}{
		{"no headers", "SEND\n\n\x00", Frame{"SEND", []Header{}, nil}},
		{"headers", "SEND\na:1\nb:2\n\n\x00", Frame{"SEND", []Header{{"a", "1"}, {"b", "2"}}, nil}},
		{"carriage returns", "SEND\r\na:1\r\n\r\n\x00", Frame{"SEND", []Header{{"a", "1"}}, nil}},
		{"heart-beats before", "\n\r\n\nSEND\n\n\x00", Frame{"SEND", []Header{}, nil}},
		{"unknown command", "HELLO\n\n\x00", Frame{"HELLO", []Header{}, nil}},
		{"empty value", "SEND\na:\n\n\x00", Frame{"SEND", []Header{{"a", ""}}, nil}},
		{"spaces are part of it", "SEND\n a : 1 \n\n\x00", Frame{"SEND", []Header{{" a ", " 1 "}}, nil}},
		{"escapes", `SEND` + "\n" + `\c\r:\n\\\c` + "\n\n\x00", Frame{"SEND", []Header{{":\r", "\n\\:"}}, nil}},
		{"repeated header", "SEND\na:1\na:2\n\n\x00", Frame{"SEND", []Header{{"a", "1"}, {"a", "2"}}, nil}},
		{"unicode", "SEND\nключ:значение\n\n\x00", Frame{"SEND", []Header{{"ключ", "значение"}}, nil}},
		{"body to the first NUL", "SEND\n\nab\n\x00cd", Frame{"SEND", []Header{}, []byte("ab\n")}},
		{"body by length", "SEND\ncontent-length:3\n\na\x00b\x00",
			Frame{"SEND", []Header{{"content-length", "3"}}, []byte("a\x00b")}},
		{"no body by length", "SEND\ncontent-length:0\n\n\x00", Frame{"SEND", []Header{{"content-length", "0"}}, nil}},
		{"first length counts", "SEND\ncontent-length:1\ncontent-length:9\n\na\x00",
			Frame{"SEND", []Header{{"content-length", "1"}, {"content-length", "9"}}, []byte("a")}},
		{"unescaped CONNECT", "CONNECT\npasscode:a:b\\x\\\n\n\x00", Frame{"CONNECT", []Header{{"passcode", `a:b\x\`}}, nil}},
		{"escaped STOMP", "STOMP\npasscode:a\\cb\\\\\n\n\x00", Frame{"STOMP", []Header{{"passcode", `a:b\`}}, nil}},
		{"unescaped CONNECTED", "CONNECTED\nsession:a:b\n\n\x00", Frame{"CONNECTED", []Header{{"session", "a:b"}}, nil}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := read(tt.in)
			if err != nil {
				t.Fatal(err)
			}
			if !reflect.DeepEqual(*f, tt.want) {
				t.Errorf("got  %q\nwant %q", *f, tt.want)
			}
		})
	}
}

// Input that violates the grammar is a ProtocolError, and the reason names the
// violation.
func TestReadFrameRefuses(t *testing.T) {
	tests := []struct{ name, in, reason string }{
		{"small letters", "send\n\n\x00", "capital letters"},
		{"empty command", "\r\x00", "carriage return"},
		{"space after command", "SEND \n\n\x00", "capital letters"},
		{"TLS record", "\x16\x03\x01\x02\x00\n", "capital letters"},
		{"no line end", strings.Repeat("A", 1<<20), "command longer than 50 bytes"},
		{"no colon", "SEND\na:b\nabc\n\n\x00", "header 2 of SEND has no colon"},
		{"no name", "SEND\n:b\n\n\x00", "header 1 of SEND has no name"},
		{"third without a name", "SEND\na:1\nb:2\n:3\n\n\x00", "header 3 of SEND has no name"},
		{"third is too long", "SEND\na:1\nb:2\nc:" + strings.Repeat("x", 1100) + "\n\n\x00", "header 3 of SEND is longer"},
		{"value begins with a colon", "SEND\na::b\n\n\x00", `header "a" of SEND has a colon`},
		{"name begins with a carriage return", "SEND\n\ra:b\n\n\x00", "carriage return"},
		{"second colon", "SEND\na:b:c\n\n\x00", `header "a" of SEND has a colon`},
		{"carriage return in value", "SEND\na:b\rc\n\n\x00", "carriage return"},
		{"two carriage returns", "SEND\na:b\r\r\n\n\x00", "carriage return"},
		{"undefined escape", "SEND\na:b\\t\n\n\x00", `header "a" of SEND has an undefined escape`},
		{"half an escape", "SEND\na:b\\\n\n\x00", "undefined escape"},
		{"undefined escape in name", "SEND\n\\a:b\n\n\x00", "undefined escape"},
		{"value is not UTF-8", "SEND\na:\xff\n\n\x00", "UTF-8"},
		{"rune divided by colon", "SEND\n\xd0:\xb0\n\n\x00", "UTF-8"},
		{"length is no number", "SEND\ncontent-length:x\n\n\x00", "content-length of SEND is not a number"},
		{"length is negative", "SEND\ncontent-length:-1\n\n\x00", "not a number"},
		{"length has a sign", "SEND\ncontent-length:+1\n\na\x00", "not a number"},
		{"length is empty", "SEND\ncontent-length:\n\n\x00", "not a number"},
		{"length beyond all numbers", "SEND\ncontent-length:99999999999999999999\n\n\x00", "not a number"},
		{"length is huge", "SEND\ncontent-length:999999999999999999\n\n\x00", "larger than 8192"},
		{"length is too small", "SEND\ncontent-length:1\n\nab\x00", "no NUL"},
		{"body without an end", "SEND\n\n" + strings.Repeat("a", 1<<20), "larger than 8192"},
		{"headers without an end", "SEND\n" + strings.Repeat("a:b\n", 1<<20), "more than 50 headers"},
		{"header without an end", "SEND\na:" + strings.Repeat("b", 1<<20), "header 1 of SEND is longer than a name of 500 and a value of 500 bytes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := read(tt.in)
			if err == nil {
				t.Fatalf("got %q", *f)
			}
			if reason := protocolReason(t, err); !strings.Contains(reason, tt.reason) {
				t.Errorf("got reason %q, want one with %q", reason, tt.reason)
			}
		})
	}
}

// sized has a function for each limit. It makes a frame whose size in that respect is n
// (bytes or headers), and small in every other respect.
var sized = []struct {
	name  string
	limit int
	frame func(n int) *Frame
}{
	{"command", 50, func(n int) *Frame { return NewFrame(strings.Repeat("A", n)) }},
	{"headers", 50, func(n int) *Frame {
		f := NewFrame("ACK")
		for i := range n {
			f.Headers = append(f.Headers, Header{fmt.Sprint("h", i), "v"})
		}
		return f
	}},
	{"header name", 500, func(n int) *Frame { return NewFrame("ACK", strings.Repeat("n", n), "") }},
	{"header value", 500, func(n int) *Frame { return NewFrame("ACK", "a", strings.Repeat("v", n)) }},
	{"escaped header value", 500, func(n int) *Frame { return NewFrame("ACK", "a", strings.Repeat(":", n/2)+strings.Repeat("v", n%2)) }},
	{"header bytes", 4096, func(n int) *Frame {
		f := NewFrame("ACK")
		for n > 200 {
			f.Headers = append(f.Headers, Header{"abc", strings.Repeat("v", 95)})
			n -= 100
		}
		f.Headers = append(f.Headers, Header{"abc", strings.Repeat("v", n-5)})
		return f
	}},
	{"body", 8192, func(n int) *Frame { return &Frame{Command: "SEND", Body: make([]byte, n)} }},
}

// The limits are exactly those of the reference, in both directions: frames just within
// them are written and read, and frames just beyond are not.
func TestLimits(t *testing.T) {
	huge := Limits{1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20, 1 << 20}
	for _, tt := range sized {
		t.Run(tt.name, func(t *testing.T) {
			within, err := appendFrame(nil, tt.frame(tt.limit))
			if err != nil {
				t.Fatalf("write at the limit: %v", err)
			}
			if _, err := read(string(within)); err != nil {
				t.Errorf("read at the limit: %v", err)
			}

			prefix := []byte("before")
			got, err := appendFrame(prefix, tt.frame(tt.limit+1))
			if !errors.Is(err, ErrUnsendable) || string(got) != "before" {
				t.Errorf("write beyond the limit: got %q, %v", got, err)
			}
			beyond, err := huge.appendFrame(nil, tt.frame(tt.limit+1))
			if err != nil {
				t.Fatal(err)
			}
			if f, err := read(string(beyond)); err == nil {
				t.Errorf("read beyond the limit: got %q", *f)
			} else {
				protocolReason(t, err)
			}
			if _, err := NewReader(strings.NewReader(string(beyond)), huge).ReadFrame(); err != nil {
				t.Errorf("read with larger limits: %v", err)
			}
		})
	}
	// A body without content-length has the same limit.
	for n, ok := range map[int]bool{8192: true, 8193: false} {
		if _, err := read("SEND\n\n" + strings.Repeat("a", n) + "\x00"); (err == nil) != ok {
			t.Errorf("body of %d bytes without length: %v", n, err)
		}
	}
}

// The longest command and the longest header line that the limits allow are read, with
// either line end, also if they are longer than the buffer that the reader has otherwise.
func TestLongestLines(t *testing.T) {
	for _, l := range []Limits{
		DefaultLimits(),
		{Command: 20_000, HeaderBytes: 1 << 20},
		{HeaderName: 20_000, HeaderBytes: 1 << 20},
		{HeaderValue: 20_000, HeaderBytes: 1 << 20},
	} {
		d := l.orDefault()
		command := strings.Repeat("A", d.Command)
		name, value := strings.Repeat("n", d.HeaderName), strings.Repeat("v", d.HeaderValue)
		for _, end := range []string{"\n", "\r\n"} {
			in := command + end + name + ":" + value + end + end + "\x00"
			f, err := NewReader(strings.NewReader(in), l).ReadFrame()
			if err != nil {
				t.Errorf("%+v, line end %q: %v", l, end, err)
			} else if want := (Frame{command, []Header{{name, value}}, nil}); !reflect.DeepEqual(*f, want) {
				t.Errorf("%+v, line end %q: another frame than was sent", l, end)
			}
		}
	}
}

// The content-length that is added counts as one of the headers: a frame that is
// accepted for sending is never refused by its reader.
func TestAddedLengthCountsAsHeader(t *testing.T) {
	for headers, fits := range map[int]bool{49: true, 50: false} {
		f := &Frame{Command: "SEND", Body: []byte("x")}
		for i := range headers {
			f.Headers = append(f.Headers, Header{fmt.Sprint("h", i), ""})
		}
		b, err := appendFrame(nil, f)
		if (err == nil) != fits || err != nil && !errors.Is(err, ErrUnsendable) {
			t.Errorf("%d headers: %v", headers, err)
		}
		if err == nil {
			if _, err := read(string(b)); err != nil {
				t.Errorf("reading %d headers: %v", headers, err)
			}
		}
	}
}

// The end of a stream between frames is io.EOF, and inside a frame io.ErrUnexpectedEOF.
func TestReadFrameAtEnd(t *testing.T) {
	const frame = "SEND\r\na:b\ncontent-length:2\n\n\x00\x00\x00"
	for n := range len(frame) {
		want := io.ErrUnexpectedEOF
		if n == 0 {
			want = io.EOF
		}
		if _, err := read(frame[:n]); err != want {
			t.Errorf("after %q: got %v, want %v", frame[:n], err, want)
		}
	}
	for in, want := range map[string]error{"\n": io.EOF, "\r\n\n": io.EOF, "\r": io.ErrUnexpectedEOF, "SEND\n\nabc": io.ErrUnexpectedEOF} {
		if _, err := read(in); err != want {
			t.Errorf("after %q: got %v, want %v", in, err, want)
		}
	}
}

// No error of reading or writing a CONNECT quotes its passcode.
func TestErrorsKeepSecrets(t *testing.T) {
	const secret = "hunter2"
	for _, line := range []string{
		"passcode:" + secret + "\xff", "passcode:" + secret + "\rx", "passcode" + secret,
		"passcode:" + secret + strings.Repeat("x", 600), ":" + secret,
	} {
		if _, err := read("CONNECT\n" + line + "\n\n\x00"); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("reading %q: %v", line, err)
		}
	}
	for _, passcode := range []string{secret + "\xff", secret + strings.Repeat("x", 600)} {
		if _, err := appendFrame(nil, NewFrame("STOMP", "passcode", passcode)); err == nil || strings.Contains(err.Error(), secret) {
			t.Errorf("writing %q: %v", passcode, err)
		}
	}
}

// frames reads until an error.
func frames(r io.Reader) (all []*Frame, err error) {
	fr := NewReader(r, Limits{})
	for {
		f, err := fr.ReadFrame()
		if err != nil {
			return all, err
		}
		all = append(all, f)
	}
}

// oddReader returns its bytes in chunks of any size.
type oddReader struct {
	data []byte
	rnd  *rand.Rand
}

func (r *oddReader) Read(p []byte) (int, error) {
	if len(r.data) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.data[:min(len(r.data), r.rnd.IntN(64))])
	r.data = r.data[n:]
	return n, nil
}

// The result does not depend on the chunks in which bytes are received, and frames
// share no memory.
func TestReadFrameInPieces(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	var stream []byte
	var want []*Frame
	for i := range 500 {
		f := NewFrame("MESSAGE", "message-id", fmt.Sprint(i), "x:\r\n", strings.Repeat("\\é", rnd.IntN(90)))
		f.Body = make([]byte, rnd.IntN(8193))
		for j := range f.Body {
			f.Body[j] = byte(rnd.IntN(3))
		}
		var err error
		if stream, err = appendFrame(stream, f); err != nil {
			t.Fatal(err)
		}
		stream = append(stream, "\n\r\n"[:rnd.IntN(2)*3]...)
		f.Headers = append(f.Headers, Header{"content-length", fmt.Sprint(len(f.Body))})
		if len(f.Body) == 0 {
			f.Body = nil
		}
		want = append(want, f)
	}
	for name, r := range map[string]io.Reader{
		"at once":     strings.NewReader(string(stream)),
		"single":      iotest.OneByteReader(strings.NewReader(string(stream))),
		"odd":         &oddReader{stream, rnd},
		"half":        iotest.HalfReader(strings.NewReader(string(stream))),
		"with errors": iotest.DataErrReader(strings.NewReader(string(stream))),
	} {
		got, err := frames(r)
		if err != io.EOF {
			t.Errorf("%s: %v after %d frames", name, err, len(got))
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: other frames than were written", name)
		}
	}
}

// Any input gives frames or an error, which do not depend on the chunks in which it is
// received. A frame that was read can be written, unless escapes make it too large, and
// reads back the same.
func FuzzReadFrame(f *testing.F) {
	f.Add([]byte("STOMP\naccept-version:1.2\nhost:/\n\n\x00\n\r\nSEND\r\ndestination:/a\\cb\r\n\r\nbody\x00"))
	f.Add([]byte("SEND\ncontent-length:3\n\na\x00b\x00ERROR\nmessage:x\n\n\x00"))
	f.Add([]byte("CONNECT\npasscode:a:\\x\\\n\n\x00SEND\ncontent-length:03\n\nabc\x00"))
	f.Add([]byte("\r\rSEND\nx\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		costtest.Check(t, "a frame", func() { _, _ = NewReader(bytes.NewReader(data), Limits{}).ReadFrame() })
		all, err := frames(strings.NewReader(string(data)))
		single, singleErr := frames(iotest.OneByteReader(strings.NewReader(string(data))))
		if !reflect.DeepEqual(all, single) || err.Error() != singleErr.Error() {
			t.Fatalf("in one piece %v, %v\nin single bytes %v, %v", all, err, single, singleErr)
		}
		for _, frame := range all {
			checkRoundTrip(t, frame)
		}
	})
}

// Any frame that a program makes is either refused or reads back the same.
func FuzzAppendFrame(f *testing.F) {
	f.Add("SEND", "destination", "/a:b", "x\\", "\r\n", []byte("body\x00"))
	f.Add("CONNECTED", "content-length", "0", "a", "", []byte(nil))
	f.Fuzz(func(t *testing.T, command, n1, v1, n2, v2 string, body []byte) {
		frame := NewFrame(command, n1, v1, n2, v2)
		if len(body) > 0 {
			frame.Body = body
		}
		checkRoundTrip(t, frame)
	})
}

func checkRoundTrip(t *testing.T, f *Frame) {
	b, err := appendFrame(nil, f)
	if err != nil {
		if !errors.Is(err, ErrUnsendable) || b != nil {
			t.Fatalf("%q: %q, %v", *f, b, err)
		}
		return
	}
	got, err := read(string(b))
	if err != nil {
		t.Fatalf("%q was written as %q, which gives %v", *f, b, err)
	}
	if len(got.Headers) == len(f.Headers)+1 { // the content-length added by the writer
		got.Headers = got.Headers[:len(f.Headers)]
	}
	if !reflect.DeepEqual(got, f) {
		t.Fatalf("wrote %q\nread  %q", *f, *got)
	}
}
