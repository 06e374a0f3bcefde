package stomp

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

// benchFrame is a SEND as the peers of this network send it.
func benchFrame() *Frame {
	f := NewFrame("SEND",
		"destination", "/exchange/accounts_in",
		"type", "PrepareTransfer",
		"content-type", "application/json",
		"persistent", "true",
		"receipt", "123456")
	f.Body = bytes.Repeat([]byte("x"), 500)
	return f
}

// endless repeats its bytes forever.
type endless struct {
	data []byte
	at   int
}

func (r *endless) Read(p []byte) (int, error) {
	n := copy(p, r.data[r.at:])
	r.at = (r.at + n) % len(r.data)
	return n, nil
}

func BenchmarkReadFrame(b *testing.B) {
	one, err := appendFrame(nil, benchFrame())
	if err != nil {
		b.Fatal(err)
	}
	r := NewReader(&endless{data: bytes.Repeat(one, 100)}, Limits{})
	b.SetBytes(int64(len(one)))
	b.ReportAllocs()
	for b.Loop() {
		if _, err := r.ReadFrame(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendFrame(b *testing.B) {
	f := benchFrame()
	var buf []byte
	b.ReportAllocs()
	for b.Loop() {
		var err error
		if buf, err = appendFrame(buf[:0], f); err != nil {
			b.Fatal(err)
		}
	}
	b.SetBytes(int64(len(buf)))
}

// BenchmarkSession measures a message from Send to its confirmation, with a thousand in
// flight over the loopback interface, and a receipt for every tenth message.
func BenchmarkSession(b *testing.B) {
	ca, cb := tcp(b)
	c, s := session(b, ca, cb, ClientConfig{Destination: "/in", Window: 1000}, ServerConfig{Destination: "/in"})
	served := make(chan error, 1)
	go func() {
		for i := 1; ; i++ {
			m, err := s.Next()
			if errors.Is(err, io.EOF) {
				served <- s.Finish()
				return
			}
			if err == nil && i%10 == 0 {
				err = s.Confirm(m.ID)
			}
			if err != nil {
				served <- err
				return
			}
		}
	}()
	m := Message{Type: "PrepareTransfer", ContentType: "application/json", Body: bytes.Repeat([]byte("x"), 500)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := c.Send(b.Context(), m); err != nil {
			b.Fatal(err)
		}
	}
	if err := c.Disconnect(b.Context()); err != nil {
		b.Fatal(err)
	}
	if err := <-served; err != nil {
		b.Fatal(err)
	}
}
