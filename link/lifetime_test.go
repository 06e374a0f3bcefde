package link

import (
	"context"
	"crypto/x509"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Whatever happens to the clock, a connection ends soon after the first of its
// certificates has expired by that clock, and not before: when it is set forward while
// timers stand still, as after a machine has slept, when it is set back, and when the
// expiry is centuries away.
func TestWhenEnded(t *testing.T) {
	const century = 100 * 365 * day
	for _, tt := range []struct {
		name       string
		left       time.Duration // until the certificate expires
		after      time.Duration // until the clock is set
		by         time.Duration
		want, soon time.Duration // when the connection ends, and how much later it may be
	}{
		{"in a while", 3 * time.Hour, time.Hour, 0, 3 * time.Hour, time.Second},
		{"has ended already", -time.Second, time.Hour, 0, 0, time.Second},
		{"clock set forward", century, time.Hour, 2 * century, time.Hour, maxClockInterval + time.Second},
		{"clock set back", 2 * time.Hour, time.Hour, -5 * time.Hour, 7 * time.Hour, time.Second},
		{"clock set back and not forward", century, time.Hour, -century, -1, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				var offset atomic.Int64
				s := New(Config{Now: func() time.Time { return time.Now().Add(time.Duration(offset.Load())) }})
				list := []usedCertificate{
					{"root", &x509.Certificate{NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)}},
					{"server", &x509.Certificate{NotAfter: start.Add(tt.left)}},
				}
				ended := make(chan *certificateExpired, 1)
				forget := s.onExpiry(list, func(e *certificateExpired) { ended <- e })
				defer forget()
				time.AfterFunc(tt.after, func() { offset.Store(int64(tt.by)) })
				ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
				defer cancel()
				select {
				case e := <-ended:
					took := time.Since(start)
					if tt.want < 0 || took < tt.want || took > tt.want+tt.soon {
						t.Errorf("ended after %v, want %v", took, tt.want)
					}
					if e.role != "server" || !e.notAfter.Equal(start.Add(tt.left)) {
						t.Errorf("ended for %v", e)
					}
				case <-ctx.Done():
					if tt.want >= 0 {
						t.Errorf("not ended after a day, want %v", tt.want)
					}
				}
			})
		})
	}
}

const day = 24 * time.Hour

// Each of the certificates that authenticated a connection ends it, in both directions: a
// peer whose peer certificate has expired, or was made for a short time, is cut off like one
// with an expired server certificate.
func TestEveryCertificateEndsConnections(t *testing.T) {
	t.Parallel()
	now := time.Now()
	own, received, server, issued, root := new(x509.Certificate), new(x509.Certificate), new(x509.Certificate), new(x509.Certificate), new(x509.Certificate)
	for direction, expiring := range map[string]map[string]*x509.Certificate{
		"incoming": {"server": own, "peer_server": server, "issued": issued, "root": root},
		"outgoing": {"server": own, "received": received, "peer_server": server, "peer_root": root},
	} {
		for role, expired := range expiring {
			for _, c := range []*x509.Certificate{own, received, server, issued, root} {
				c.NotAfter = now.Add(time.Hour)
			}
			list := incomingCertificates(own, []*x509.Certificate{server, issued, root})
			if direction == "outgoing" {
				list = outgoingCertificates(own, received, []*x509.Certificate{server, root})
			}
			if first, ended := firstToExpire(list, now); ended != nil {
				t.Errorf("%s: ended for %s, which is valid", direction, first.role)
			}
			expired.NotAfter = now.Add(-time.Second)
			if _, ended := firstToExpire(list, now); ended == nil || ended.role != role {
				t.Errorf("%s: with an expired %s: ended for %v", direction, role, ended)
			}
		}
	}
}
