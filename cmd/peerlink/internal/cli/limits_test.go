package cli

import (
	"errors"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"peerlink/link"
)

// Sizes are parsed with the usual units, and formatted so that parsing the result
// gives the same size. A text that is not a size, or a size that is too large, is
// refused.
func TestByteSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want byteSize
		text string
	}{
		{"0", 0, "0"},
		{"1", 1, "1B"},
		{"1024", 1024, "1KiB"},
		{"1000", 1000, "1kB"},
		{"1GiB", 1 << 30, "1GiB"},
		{"1536MiB", 3 << 29, "1536MiB"},
		{"500MB", 5e8, "500MB"},
		{"500 MB", 5e8, "500MB"},
		{"8388607TiB", 8388607 << 40, "8388607TiB"},
	} {
		var b byteSize
		if err := b.Set(tt.in); err != nil || b != tt.want {
			t.Errorf("Set(%q): got %d, error %v, want %d", tt.in, b, err, tt.want)
		}
		if b.String() != tt.text {
			t.Errorf("String after Set(%q): got %q, want %q", tt.in, b, tt.text)
		}
	}
	for _, in := range []string{"", "GiB", "-1", "1.5GiB", "1gib", "8388608TiB", "99999999999999999999", "1KiB2", "0x10"} {
		var b byteSize
		if err := b.Set(in); err == nil {
			t.Errorf("Set(%q): got %d, want an error", in, b)
		}
	}
}

// The flags set the fields of link.Config: --peer-rate=0 means no limit, and with
// --idle=0 idle connections are never closed.
func TestLimitFlags(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want link.Config
	}{
		{nil, link.Config{MaxConnsPerPeer: 10, IdleTimeout: 10 * time.Minute, MaxRate: link.DefaultMaxRate}},
		{[]string{"--idle=0", "--peer-rate=0"}, link.Config{MaxConnsPerPeer: 10, IdleTimeout: -1}},
		{[]string{"--idle=3s", "--peer-rate=500", "--max-connections-per-peer=3"}, link.Config{MaxConnsPerPeer: 3, IdleTimeout: 3 * time.Second, MaxRate: 500}},
	} {
		var l limitFlags
		c := new(cobra.Command)
		l.add(c)
		var got link.Config
		if err := errors.Join(c.ParseFlags(tt.args), l.set(&got, embeddedBroker)); err != nil {
			t.Fatal(err)
		}
		if got.MaxConnsPerPeer != tt.want.MaxConnsPerPeer || got.IdleTimeout != tt.want.IdleTimeout || got.MaxRate != tt.want.MaxRate {
			t.Errorf("%q: got %+v, want %+v", tt.args, got, tt.want)
		}
	}
}
