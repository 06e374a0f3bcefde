package cli

import "testing"

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
