package infobundle

import (
	"fmt"
	"strings"
	"time"

	"peerlink/internal/excerpt"
)

// dateFormats are the forms of a bundle's date, in UTC. The reference writes the
// first, in local time. Each sorts, as a string, after the one above it.
var dateFormats = []string{time.DateOnly, "2006-01-02T150405", "2006-01-02T150405.000000"}

// maxAhead is how far in the future a bundle's date may be. Clocks differ, and
// the reference writes local dates, which are up to 14 hours ahead of UTC.
const maxAhead = 24 * time.Hour

// ParseDate reads the date of a bundle.
func ParseDate(date string) (time.Time, error) {
	for _, format := range dateFormats {
		// Package time reads other fractions too, which would sort differently.
		if t, err := time.Parse(format, date); err == nil && t.Format(format) == date {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date: expected YYYY-MM-DD or YYYY-MM-DDThhmmss, in UTC", excerpt.Of(date))
}

// CheckDate checks the date of a bundle: it must be one, and not lie more than a
// day ahead, or no newer bundle could take its place before then.
func CheckDate(date string, now time.Time) error {
	t, err := ParseDate(date)
	if err == nil && t.After(now.Add(maxAhead)) {
		err = fmt.Errorf("the date %s is more than a day ahead of this machine's clock, which shows %s", date, now.UTC().Format(time.RFC3339))
	}
	return err
}

// NextDate returns the date of a new bundle: of a node's first one today's, of a later
// one today's with as much of the time as it takes. If old, the date of the last
// bundle, is ahead of now, it is the next that sorts after old. It reports false if
// that would lie more than a day ahead.
//
// Since old may be that of an older backup, a later bundle has the time also if
// old is an earlier day's: the same day's bundles that the backup does not know of are
// not newer.
func NextDate(old string, now time.Time) (date string, ok bool) {
	t, err := ParseDate(old)
	if err != nil {
		old = "" // nobody takes that for a date
	}
	formats := dateFormats
	if old != "" {
		formats = formats[1:]
	}
	for _, at := range []time.Time{now.UTC(), t.Add(time.Second)} {
		for _, format := range formats {
			if date := at.Format(format); date > old {
				return date, CheckDate(date, now) == nil
			}
		}
	}
	return "", false
}

// DateOf returns the date in the content of an updated-at.txt, or "" if there is
// none.
func DateOf(updatedAt []byte) string {
	date := strings.TrimSpace(string(updatedAt))
	if _, err := ParseDate(date); err != nil {
		return ""
	}
	return date
}
