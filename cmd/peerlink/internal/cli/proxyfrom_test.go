package cli

import (
	"strings"
	"testing"
)

// Addresses and ranges are parsed and formatted as prefixes. A text that is neither
// is refused.
func TestPrefixes(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1":             "192.0.2.1/32",
		"10.1.2.3/8, fd00::1/8": "10.0.0.0/8,fd00::/8",
		"::ffff:192.0.2.1":      "192.0.2.1/32",
		"2001:db8::1":           "2001:db8::1/128",
		"":                      "",
		"10.0.0.0/33":           "",
		"10.0.0.0/8,":           "",
		"localhost":             "",
		"fe80::1%eth0":          "",
		"::ffff:10.0.0.0/104":   "",
		"192.0.2.1:1234":        "",
		"192.0.2.1 192.0.2.2":   "",
		"0.0.0.0/0,::/0":        "0.0.0.0/0,::/0",
	} {
		var p prefixes
		err := p.Set(in)
		if got := p.String(); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: got %q, %v; want %q", in, got, err, want)
		}
		if err != nil && !strings.Contains(err.Error(), "is neither") {
			t.Errorf("%q: got error %v, want one that contains \"is neither\"", in, err)
		}
	}
}
