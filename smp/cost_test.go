package smp

import (
	"strings"
	"testing"

	"peerlink/internal/costtest"
)

// For any body of permitted size, parsing it as any message type, in either direction,
// allocates at most 32 MiB in total, and takes at most half a second.
func TestMessageCost(t *testing.T) {
	costtest.NeedsExactFigures(t)
	ca, aa := peers(t, "000008", "000001", "1234abcd")
	fill := func(s string) string { return strings.Repeat(s, MaxApplicationBody/len(s)-20) }
	for name, text := range map[string]string{
		"deep":              fill("["),
		"deep in a member":  `{"x":` + fill("["),
		"deep objects":      `{"x":` + fill(`{"":`),
		"members":           `{` + fill(`"":0,`),
		"arrays":            `{"x":[` + fill(`[],`),
		"a long number":     `{"principal":` + fill("9") + `}`,
		"a long fraction":   `{"interest":0.` + fill("9") + `}`,
		"a long exponent":   `{"interest":1e` + fill("9") + `}`,
		"escapes":           `{"account_id":"` + fill(`\u0041`) + `"}`,
		"surrogates":        `{"account_id":"` + fill(`\ud83d\ude00`) + `"}`,
		"a long name":       `{"` + fill(`\n`) + `":0}`,
		"white space":       `{` + fill(" \n") + `}`,
		"not UTF-8":         fill("\xff"),
		"a long timestamp":  `{"ts":"2026-01-01T00:00:00.` + fill("0") + `Z"}`,
		"an endless string": `{"x":"` + fill("x"),
		"too long":          `{"x":"` + strings.Repeat("x", 64<<20),
	} {
		body := []byte(text)
		for _, typ := range []string{PrepareTransfer, AccountUpdate, "x"} {
			for _, v := range []View{ca, aa} {
				costtest.Check(t, name+" as "+typ, func() { _, _ = v.Outgoing(typ, ContentType, body) })
				costtest.Check(t, name+" as "+typ, func() { _, _ = v.Incoming(typ, ContentType, body, arrival) })
				costtest.Check(t, name+", peeked", func() { _, _, _, _ = PeekIDs(body) })
			}
		}
	}
}
