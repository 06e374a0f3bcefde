package outproxy

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"peerlink/internal/costtest"
)

// What a proxy answers takes little memory and time, however much it is.
func TestAnswerCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	const much = 4 << 20
	for name, answer := range map[string]string{
		"http: long line":       "HTTP/1.1 200 " + strings.Repeat("x", much),
		"http: many headers":    "HTTP/1.1 200 OK\r\n" + strings.Repeat("X:\r\n", much/4),
		"http: long header":     "HTTP/1.1 200 OK\r\nX: " + strings.Repeat("y", much),
		"http: continued":       "HTTP/1.1 200 OK\r\nX: y\r\n" + strings.Repeat(" y\r\n", much/4),
		"http: interim answers": strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", much/25),
		"http: empty lines":     strings.Repeat("\r\n", much/2),
		"socks5: long name":     "\x05\x00\x05\x00\x00\x03\xff" + strings.Repeat("\xff", much),
		"socks5: no type":       "\x05\x00\x05\x00\x00\xff" + strings.Repeat("\xff", much),
		"socks5: no version":    strings.Repeat("\xff", much),
	} {
		scheme, _, _ := strings.Cut(name, ":")
		p := mustParse(t, scheme+"://"+listen(t, func(c net.Conn) { io.CopyN(io.Discard, c, 3); io.WriteString(c, answer) }))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		costtest.Check(t, name, func() {
			if conn, err := p.Dial(ctx, "peer.invalid:1234"); err == nil {
				conn.Close()
			}
		})
		cancel()
	}
}
