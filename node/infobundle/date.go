package infobundle

import (
	"fmt"
	"strings"
	"time"

	"peerlink/internal/excerpt"
)

// dateFormats are the formats of a bundle's date, in UTC. The reference writes the first, in
// local time. For the same time, each format sorts, as a string, after the previous one.
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

// CheckDate checks the date of a bundle: it must be valid, and at most one day in the future.
// Until the date is in the past, no newer bundle could replace the bundle.
func CheckDate(date string, now time.Time) error {
	t, err := ParseDate(date)
	if err == nil && t.After(now.Add(maxAhead)) {
		err = fmt.Errorf("the date %s is more than a day ahead of this machine's clock, which shows %s", date, now.UTC().Format(time.RFC3339))
	}
	return err
}

// NextDate returns the date of a new bundle, where old is the date of the last one. For a node's
// first bundle it is today's date, for later ones today's date with the time, with microseconds
// if necessary. If old is after now, NextDate returns the next date that sorts after old, or
// false if that is more than a day in the future.
//
// A later bundle has the time even if old is on an earlier day: old may be from an older backup,
// and the new date must sort after those of today's bundles that the backup lacks.
func NextDate(old string, now time.Time) (date string, ok bool) {
	t, err := ParseDate(old)
	if err != nil {
		old = "" // no implementation accepts it as a date
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
