package link

import (
	"bufio"
	"bytes"
	"net"
	"strings"
	"testing"

	"peerlink/internal/costtest"
)

// The first bytes of a connection take little memory and time: those of a ClientHello in the smallest and the
// largest records, and those of a PROXY header.
func TestFirstBytesCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	long := "\x16\x03\x01\x00\x04\x01\xff\xff\xff" // the message has 16 MiB
	for name, text := range map[string]string{
		"records of a byte":   long + strings.Repeat("\x16\x03\x01\x00\x01\x00", 1<<20),
		"records of 16 bytes": long + strings.Repeat("\x16\x03\x01\x00\x10"+strings.Repeat("\x00", 16), 1<<16),
		"one record":          "\x16\x03\x01\x3f\x00\x01\xff\xff\xff" + strings.Repeat("\x00", 1<<20),
		"a long record":       "\x16\x03\x01\xff\xff" + strings.Repeat("\x00", 1<<20),
	} {
		costtest.CheckMemory(t, name, 1<<20, func() { _, _ = readClientHello(strings.NewReader(text)) })
		costtest.Check(t, name, func() { _, _ = readClientHello(strings.NewReader(text)) })
	}
	const v2 = "\r\n\r\n\x00\r\nQUIT\n"
	conn, other := net.Pipe()
	defer conn.Close()
	defer other.Close()
	for name, text := range map[string]string{
		"version 1, a long line": "PROXY TCP4 " + strings.Repeat("1", 1<<20),
		"version 1, spaces":      "PROXY TCP4 " + strings.Repeat(" ", 1<<20) + "\r\n",
		"version 2, long":        v2 + "\x21\x11\xff\xff" + strings.Repeat("\x00", 1<<20),
		"version 2, local":       v2 + "\x20\x11\xff\xff" + strings.Repeat("\x00", 1<<20),
		"version 2, attributes":  v2 + "\x21\x11\x08\x00" + strings.Repeat("\x00", 1<<20),
	} {
		read := func() { _, _ = readProxyHeader(conn, bufio.NewReaderSize(strings.NewReader(text), proxyBuffer)) }
		costtest.CheckMemory(t, name, 1<<20, read)
		costtest.Check(t, name, read)
	}
}

// A client can begin with any bytes: reading them ends without a panic, and never takes more of them than a
// ClientHello may have.
func FuzzFirstBytes(f *testing.F) {
	f.Add([]byte("\x16\x03\x01\x00\x04\x01\x00\x00\x00"))
	f.Add([]byte("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n"))
	f.Add([]byte("\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c\x7f\x00\x00\x01\x7f\x00\x00\x01\x00\x01\x00\x02"))
	f.Fuzz(func(t *testing.T, data []byte) {
		r := bytes.NewReader(data)
		if hello, err := readClientHello(r); len(hello) > maxClientHello || err == nil && !bytes.HasPrefix(data, hello) {
			t.Errorf("%d bytes, %v", len(hello), err)
		}
		conn, other := net.Pipe()
		defer conn.Close()
		defer other.Close()
		if address, err := readProxyHeader(conn, bufio.NewReaderSize(bytes.NewReader(data), proxyBuffer)); err == nil && address == nil {
			t.Error("no address and no error")
		}
	})
}
