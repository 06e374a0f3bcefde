package link

import (
	"bytes"
	"crypto/x509"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"peerlink/internal/logthrottle"
)

// Each certificate is logged once at 60, 30, 7 and 1 days, and once when it has
// expired, however often it is checked; as an error from 7 days on. A new certificate
// starts anew.
func TestExpiryIsLogged(t *testing.T) {
	const day = 24 * time.Hour
	start := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	end := start.Add(100 * day)
	var out bytes.Buffer
	w := expiryLogger{log: slog.New(slog.NewTextHandler(&out, nil)), limiter: logthrottle.New(), logged: make(map[expiryKey]int)}
	defer w.limiter.Close()
	first := usedCertificate{"server", &x509.Certificate{NotAfter: end, Signature: []byte("first")}}
	again := usedCertificate{"server", &x509.Certificate{NotAfter: end, Signature: []byte("first")}} // the same, read again
	peers := usedCertificate{"peer_server", &x509.Certificate{NotAfter: start.Add(1000 * day), Signature: []byte("peer's")}}

	lines := func() string {
		defer out.Reset()
		var levels []string
		for l := range strings.Lines(out.String()) {
			if !strings.Contains(l, "certificate=server") || !strings.Contains(l, "what_to_do=") {
				t.Errorf("line %s", l)
			}
			level, _, _ := strings.Cut(l[strings.Index(l, "level=")+len("level="):], " ")
			if strings.Contains(l, "has ended") {
				level += " ended"
			}
			levels = append(levels, level)
		}
		return strings.Join(levels, ",")
	}
	entries := make(map[int]string) // by hours left
	for hours := range 103 * 24 {
		now := start.Add(time.Duration(hours) * time.Hour)
		for _, c := range []usedCertificate{first, again} {
			w.check("", []usedCertificate{c}, now)
		}
		w.check("1234abcd", []usedCertificate{peers}, now)
		if text := lines(); text != "" {
			entries[int(end.Sub(now)/time.Hour)] = text
		}
	}
	want := map[int]string{61*24 - 1: "WARN", 31*24 - 1: "WARN", 8*24 - 1: "ERROR", 2*24 - 1: "ERROR", -1: "ERROR ended"}
	for hours, text := range entries {
		if want[hours] != text {
			t.Errorf("%d hours before the end: logged %q, want %q", hours, text, want[hours])
		}
	}
	if len(entries) != len(want) {
		t.Errorf("the log entries are %v", entries)
	}

	second := usedCertificate{"server", &x509.Certificate{NotAfter: end.Add(5 * day), Signature: []byte("second")}}
	w.check("", []usedCertificate{second}, end)
	if text := lines(); text != "ERROR" {
		t.Errorf("a new certificate that is about to end: %q", text)
	}
	// A service that starts late logs the last threshold only.
	w.logged = make(map[expiryKey]int)
	w.check("", []usedCertificate{first}, end.Add(-day))
	if text := lines(); text != "ERROR" {
		t.Errorf("logged at the start: %q", text)
	}
}

// The number of remembered certificates of peers is bounded.
func TestExpiryMemory(t *testing.T) {
	w := expiryLogger{log: slog.New(slog.DiscardHandler), limiter: logthrottle.New(), logged: make(map[expiryKey]int)}
	defer w.limiter.Close()
	now := time.Now()
	for n := range maxLogged + 100 {
		w.check("1234abcd", []usedCertificate{{"peer_server", &x509.Certificate{NotAfter: now, Signature: []byte{byte(n >> 16), byte(n >> 8), byte(n)}}}}, now)
	}
	if len(w.logged) > maxLogged {
		t.Errorf("%d are remembered", len(w.logged))
	}
}

// A peer that shows another server certificate that ends soon with each connection does not fill
// the log, and does not hide what is logged about this node's certificates and other peers'.
func TestExpiryLogIsBounded(t *testing.T) {
	var out bytes.Buffer
	w := expiryLogger{log: slog.New(slog.NewTextHandler(&out, nil)), limiter: logthrottle.New(), logged: make(map[expiryKey]int)}
	now := time.Now()
	soon := func(role string, n int) usedCertificate {
		return usedCertificate{role, &x509.Certificate{NotAfter: now.Add(20 * time.Hour), Signature: fmt.Append(nil, role, n)}}
	}
	for n := range 1000 {
		w.check("1234abcd", []usedCertificate{soon("peer_server", n)}, now)
	}
	w.check("5678abcd", []usedCertificate{soon("peer_server", 0)}, now)
	w.check("", []usedCertificate{soon("server", 0)}, now)
	w.limiter.Close() // writes the last of those that are only counted
	if lines := strings.Count(out.String(), "peer=1234abcd"); lines < 2 || lines > 11 {
		t.Errorf("%d lines about 1000 certificates", lines)
	}
	for _, text := range []string{"like_this=990", "peer=5678abcd", "certificate=server"} {
		if !strings.Contains(out.String(), text) {
			t.Errorf("no %q in\n%s", text, &out)
		}
	}
}
