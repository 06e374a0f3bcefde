package pki

import (
	"testing"
	"time"
)

// The expiry of a certificate is reported at 60, 30, 7 and 1 days before, each from
// that day on. It can be centuries ahead.
func TestExpiry(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	const day = 24 * time.Hour
	for _, tt := range []struct {
		end        time.Time
		days, want int
	}{
		{now.AddDate(600, 0, 0), 219145, 0},
		{now.Add(61 * day), 61, 0},
		{now.Add(61*day - time.Second), 60, 60},
		{now.Add(31 * day), 31, 60},
		{now.Add(30*day + time.Hour), 30, 30},
		{now.Add(8 * day), 8, 30},
		{now.Add(7 * day), 7, 7},
		{now.Add(2 * day), 2, 7},
		{now.Add(2*day - time.Second), 1, 1},
		{now, 0, 1},
		{now.Add(-time.Second), -1, 1},
		{now.Add(-3 * day), -3, 1},
	} {
		if days, within := Expiry(tt.end, now); days != tt.days || within != tt.want {
			t.Errorf("end %v: %d days, within %d; want %d, %d", tt.end, days, within, tt.days, tt.want)
		}
	}
}
