package pki

import "time"

// expiryDays are the days before a certificate's end at which operators are warned.
var expiryDays = [...]int{1, 7, 30, 60}

// Expiry returns the number of whole days until a certificate ends, which is negative
// after the end, and the smallest of the thresholds 60, 30, 7 and 1 that this number has
// reached, or 0 if it has reached none.
func Expiry(notAfter, now time.Time) (daysLeft, within int) {
	// Not a time.Duration, which would overflow for root certificates.
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
