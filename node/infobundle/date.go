package infobundle

import (
	"fmt"
	"strings"
	"time"

	"peerlink/internal/excerpt"
)

// dateFormats are the formats of a bundle's date, in UTC. The reference writes the first format, in
// local time. For the same time, each format sorts, as a string, after the previous format.
var dateFormats = []string{time.DateOnly, "2006-01-02T150405", "2006-01-02T150405.000000"}

// maxAhead is the maximum time by which a bundle's date may be in the future. Clocks differ, and
// the reference writes local dates, which are up to 14 hours ahead of UTC.
const maxAhead = 24 * time.Hour

// ParseDate parses the date of a bundle.
func ParseDate(date string) (time.Time, error) {
	for _, format := range dateFormats {
		// Package time accepts fractions of other lengths too, which would sort differently.
		if t, err := time.Parse(format, date); err == nil && t.Format(format) == date {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is not a date: expected YYYY-MM-DD or YYYY-MM-DDThhmmss, in UTC", excerpt.Of(date))
}

// CheckDate checks the date of a bundle: it must be valid, and at most one day in the future. A
// bundle with a date far in the future would take precedence over all newer bundles until that
// date.
func CheckDate(date string, now time.Time) error {
	t, err := ParseDate(date)
	if err == nil && t.After(now.Add(maxAhead)) {
		err = fmt.Errorf("the date %s is more than a day ahead of this machine's clock, which shows %s", date, now.UTC().Format(time.RFC3339))
	}
	return err
}

// NextDate returns the date of a new bundle of a node. old is the date of the node's previous
// bundle, or "" for its first bundle. A first bundle gets today's date. Later bundles get today's
// date with the time, with microseconds if necessary to sort after old. If old is in the future,
// the new date is one second after old. ok reports whether the new date is valid according to
// [CheckDate].
//
// Later bundles get the time even if old is on an earlier day, because old may be from an older
// backup, and the new date must sort after the dates of today's bundles that are not in the backup.
func NextDate(old string, now time.Time) (date string, ok bool) {
	t, err := ParseDate(old)
	if err != nil {
		old = "" // not a valid date, so no other node has accepted it
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

// DateOf returns the date in the content of an updated-at.txt, or "" if there is no valid date.
func DateOf(updatedAt []byte) string {
	date := strings.TrimSpace(string(updatedAt))
	if _, err := ParseDate(date); err != nil {
		return ""
	}
	return date
}
