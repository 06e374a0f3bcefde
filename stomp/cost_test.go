package stomp

import (
	"strings"
	"testing"

	"peerlink/internal/costtest"
)

// Reading a frame from any input takes at most half a second, and 32 MiB of allocations
// in total.
func TestReadCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	const endless = 4 << 20
	d := DefaultLimits()
	fill := func(s string, n int) string { return strings.Repeat(s, n/len(s)) }
	for name, text := range map[string]string{
		"command":         fill("A", endless),
		"no NUL":          "SEND\n\n" + fill("x", endless),
		"a long body":     "SEND\ncontent-length:999999999999999999\n\n" + fill("x", endless),
		"the longest":     "SEND\n" + fill("a:\n", 3*d.Headers) + "content-length:8192\n\n" + fill("x", endless),
		"headers":         "SEND\n" + fill("a:\n", endless),
		"a long header":   "SEND\n" + fill("a", endless),
		"escapes":         "SEND\na:" + fill(`\\`, d.HeaderValue) + "\n\n\x00",
		"wrong escapes":   "CONNECT\na:" + fill(`\`, endless),
		"content-lengths": "SEND\n" + fill("content-length:1\n", d.HeaderBytes-20) + "\nx\x00",
		"colons":          "CONNECT\n" + fill(":", endless),
		"line ends":       fill("\n", endless),
		"returns":         fill("\r\n", endless),
	} {
		costtest.Check(t, name, func() { _, _ = NewReader(strings.NewReader(text), Limits{}).ReadFrame() })
	}
}
