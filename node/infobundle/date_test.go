package infobundle

import (
	"errors"
	"strings"
	"testing"
	"time"

	"peerlink/node/nodetype"
)

// Bundles whose date is invalid, or so late that no later bundle could have a later
// date, are refused: after such a bundle, the information about a node could not be
// updated.
func TestDates(t *testing.T) {
	a := newAuthor(t, nodetype.CreditorsAgent)
	at := time.Date(2026, 11, 28, 15, 0, 0, 0, time.UTC)
	for date, ok := range map[string]bool{
		"2026-11-28": true, "2026-11-28\r\n": true, "2026-11-28T150000": true, "2026-11-28T150000.000001": true, "1999-01-01": true,
		"2026-11-29": true, "2026-11-29T150000": true, // a day ahead
		"2026-11-29T150001": false, "2026-11-30": false, "9999-12-31": false,
		"~~~~": false, "": false, "\ufeff2026-11-28": false, "2026-02-30": false, "2026-11-28T240000": false, "26-11-28": false, "2026-11-28Z": false,
		"2026-11-28T150000.1": false, "2026-11-28T150000,000001": false, "2026-11-28 15:00": false, "2026-11-28\n2026-11-29": false,
		strings.Repeat("9", 1000): false,
	} {
		inner := zipOf(t, entry{StompTOML, []byte("x"), 0}, entry{UpdatedAt, []byte(date), 0})
		err := CheckDate(strings.TrimSpace(date), at)
		if (err == nil) != ok {
			t.Errorf("CheckDate(%q): got error %v, want ok %v", date, err, ok)
		}
		// The certificate is valid now, which is not the time at.
		_, err = Read(a.signed(t, inner), time.Now())
		if garbage := DateOf([]byte(date)) == ""; garbage && (!errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), UpdatedAt)) {
			t.Errorf("a bundle with the date %q: got error %v, want ErrInvalid", date, err)
		}
	}
}

// Later bundles of a node have later dates, compared as strings, in whatever time
// zones the bundles are made, and no date is more than a day ahead.
func TestNextDate(t *testing.T) {
	utc := time.Date(2026, 11, 28, 15, 0, 0, 0, time.UTC)
	for _, tt := range []struct{ old, want string }{
		{"", "2026-11-28"},
		{"2026-11-20", "2026-11-28T150000"}, // perhaps of an older backup
		{"2026-11-27T235959.999999", "2026-11-28T150000"},
		{"2026-11-28", "2026-11-28T150000"},
		{"2026-11-28T150000", "2026-11-28T150000.000000"},
		{"2026-11-28T150000.000000", "2026-11-28T150001"},
		{"2026-11-28T150001", "2026-11-28T150002"},
		{"2026-11-28T235959", "2026-11-29T000000"},
		{"2026-11-29", "2026-11-29T000001"}, // a local date in a time zone further east
		{"2026-11-29T090000.500000", "2026-11-29T090001"},
		{"2026-11-29T145959", "2026-11-29T150000"},
		{"2026-11-29T150000", "refused"},
		{"2999-01-01", "refused"},
		{"~~~~", "2026-11-28"},
	} {
		for _, zone := range []*time.Location{time.UTC, time.FixedZone("east", 14*3600), time.FixedZone("west", -12*3600)} {
			got, ok := NextDate(tt.old, utc.In(zone))
			if !ok {
				got = "refused"
			}
			if got != tt.want {
				t.Errorf("after %q: %s, want %s", tt.old, got, tt.want)
			}
		}
	}
	// A hundred bundles in one second.
	date := ""
	for range 100 {
		next, ok := NextDate(date, utc)
		if !ok || next <= date {
			t.Fatalf("after %s: %s, %v", date, next, ok)
		}
		date = next
	}
}

// The error for a bundle that a shell has rewritten as text names the byte order
// mark.
func TestBundleWithMark(t *testing.T) {
	for _, mark := range []string{"\ufeff", "\xff\xfe", "\xfe\xff"} {
		_, err := Read([]byte(mark+"PK\x03\x04"), now)
		if !errors.Is(err, ErrInvalid) || !strings.Contains(err.Error(), "byte order mark") {
			t.Errorf("%q: %v", mark, err)
		}
	}
}
