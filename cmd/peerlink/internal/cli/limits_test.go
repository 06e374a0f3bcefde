package cli

import (
	"errors"
	"testing"
	"time"

	"github.com/spf13/cobra"

	"peerlink/link"
)

// Sizes are read with the units that people write, and written so that they read
// the same; what is no size, or none that exists, is refused.
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
			t.Errorf("%q is %d, %v, want %d", tt.in, b, err, tt.want)
		}
		if b.String() != tt.text {
			t.Errorf("%q is written %q, want %q", tt.in, b, tt.text)
		}
	}
	for _, in := range []string{"", "GiB", "-1", "1.5GiB", "1gib", "8388608TiB", "99999999999999999999", "1KiB2", "0x10"} {
		var b byteSize
		if err := b.Set(in); err == nil {
			t.Errorf("%q is %d", in, b)
		}
	}
}

// The flags mean what the link makes of them: 0 is the way to have no limit, and
// connections that never rest.
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
			t.Errorf("%q gives %+v", tt.args, got)
		}
	}
}
