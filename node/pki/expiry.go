package pki

import "time"

// expiryDays are the days before a certificate's end at which operators are warned.
var expiryDays = [...]int{1, 7, 30, 60}

// Expiry returns how many whole days are left until a certificate's end, and which
// of the thresholds 60, 30, 7 and 1 that has come down to: 0 if none yet. What
// has ended has a negative number of days left.
func Expiry(notAfter, now time.Time) (daysLeft, within int) {
	// A time.Duration does not reach as far as root certificates last.
	const day = 24 * 60 * 60
	left := notAfter.Unix() - now.Unix()
	daysLeft = int(left / day)
	if left%day < 0 {
		daysLeft--
	}
	for _, days := range expiryDays {
		if daysLeft <= days {
			return daysLeft, days
		}
	}
	return daysLeft, 0
}
