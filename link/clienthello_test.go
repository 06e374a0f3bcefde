package link

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"testing"
	"testing/iotest"
)

// recordedHello returns the first bytes that a TLS client sends.
func recordedHello(t *testing.T, conf *tls.Config) []byte {
	t.Helper()
	client, server := net.Pipe()
	go func() {
		conf.InsecureSkipVerify = true
		_ = tls.Client(client, conf).Handshake()
	}()
	hello, err := readClientHello(server)
	if err != nil {
		t.Fatal(err)
	}
	client.Close()
	return hello
}

// A ClientHello is read completely and not beyond its last byte, however it is divided
// into records and segments. Reading ends at once when the input cannot become a
// ClientHello.
func TestReadClientHello(t *testing.T) {
	hello := recordedHello(t, &tls.Config{})
	fragments := func(size int) []byte {
		var b []byte
		for body := hello[recordHeader:]; len(body) > 0; {
			n := min(size, len(body))
			b = append(b, recordHandshake, 3, 1, byte(n>>8), byte(n))
			b = append(b, body[:n]...)
			body = body[n:]
		}
		return b
	}
	for name, c := range map[string]struct {
		in   []byte
		want int // bytes
		err  error
	}{
		"as Go sends it":      {hello, len(hello), nil},
		"in 500 byte records": {fragments(500), len(fragments(500)), nil},
		"in 1 byte records":   {fragments(1), len(fragments(1)), nil},
		"another message":     {[]byte{22, 3, 1, 0, 4, 2, 0, 0, 9}, 9, nil},
		"a line of HTTP":      {[]byte("GET / HTTP/1.1\r\n"), recordHeader, nil},
		"nothing":             {nil, 0, io.EOF},
		"half a header":       {hello[:3], 0, io.ErrUnexpectedEOF},
		"a header":            {hello[:recordHeader], 0, io.ErrUnexpectedEOF},
		"a part":              {hello[:len(hello)-1], 0, io.ErrUnexpectedEOF},
		"a PROXY header":      {[]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"), 0, errProxyHeader},
		"of version 2":        {[]byte("\r\n\r\n\x00\r\nQUIT\n"), 0, errProxyHeader},
	} {
		for _, r := range []io.Reader{bytes.NewReader(c.in), iotest.OneByteReader(bytes.NewReader(c.in))} {
			got, err := readClientHello(r)
			if !errors.Is(err, c.err) || err == nil && len(got) != c.want {
				t.Errorf("%s: %d bytes, %v; want %d, %v", name, len(got), err, c.want, c.err)
			}
		}
		if c.err == nil {
			r := bytes.NewReader(append(bytes.Clone(c.in[:c.want]), "more"...))
			if _, err := readClientHello(r); err != nil || r.Len() != len("more") {
				t.Errorf("%s: %d bytes of what follows are left (%v)", name, r.Len(), err)
			}
		}
	}
	for name, in := range map[string][]byte{
		"an empty record": {22, 3, 1, 0, 0},
		"a long record":   {22, 3, 1, 0xff, 0xff},
		"a long message":  append([]byte{22, 3, 1, 0x20, 0, 1, 0xff, 0xff, 0xff}, bytes.Repeat(append(make([]byte, 0x2000-4), 22, 3, 1, 0x20, 0, 0, 0, 0, 0), 10)...),
	} {
		r := bytes.NewReader(in)
		if _, err := readClientHello(r); err == nil || errors.Is(err, io.EOF) || len(in)-r.Len() > maxClientHello {
			t.Errorf("%s: %v after %d bytes", name, err, len(in)-r.Len())
		}
	}
}
