package check

import (
	"crypto/x509"
	"time"

	"peerlink/node/pki"
)

const (
	// The number of years after which root and peer certificates may end at the earliest,
	// which is the specification's "very far in the future".
	farYears = 500
	// The number of days within which server certificates should end: the specification's
	// "relatively close future", "1 year for example", with a generous margin.
	closeDays = 2 * 366
)

// checkDates checks that the certificate is valid now, and adds its end to the report's
// Expiries. renew says how to get another certificate.
func (c *checker) checkDates(file string, cert *x509.Certificate, renew string) {
	e := c.expiry(file, cert)
	c.report.Expiries = append(c.report.Expiries, e)
	end := cert.NotAfter.UTC().Format(time.DateOnly)
	switch {
	case c.now.Before(cert.NotBefore):
		c.problem(file, RuleDates, "is valid only from %s on: if this machine's clock is right, the clock of the machine that signed the certificate was ahead: %s", cert.NotBefore.UTC().Format(time.DateTime), renew)
	case c.now.After(cert.NotAfter):
		c.problem(file, RuleDates, "ended on %s: a new one is needed: %s", end, renew)
	case e.WithinDays > 0:
		c.warning(file, RuleExpiry, "ends on %s, in %d days: a new one is needed by then", end, e.DaysLeft)
	}
}

// checkLongValidity checks that the certificate ends at least farYears ahead. It adds no
// finding if checkDates has added one about the end.
func (c *checker) checkLongValidity(file string, cert *x509.Certificate) {
	if c.expiry(file, cert).WithinDays == 0 && validForYearsUntil(cert, farYears).Before(c.now) {
		c.warning(file, RuleLifetime, "ends in the year %d: expected at least %d years from now", cert.NotAfter.Year(), farYears)
	}
}

// validForYearsUntil returns the last moment at which the certificate is still valid for the
// given number of years, counted in calendar years as at registration.
func validForYearsUntil(cert *x509.Certificate, years int) time.Time {
	return time.Date(cert.NotAfter.UTC().Year()-years+1, 1, 1, 0, 0, 0, -1, time.UTC)
}

func (c *checker) expiry(file string, cert *x509.Certificate) Expiry {
	e := Expiry{What: file, NotAfter: cert.NotAfter.UTC()}
	e.DaysLeft, e.WithinDays = pki.Expiry(cert.NotAfter, c.now)
	return e
}
