package admin

import (
	"crypto/tls"
	"fmt"
	"strings"
	"testing"
	"time"

	"peerlink/link/linktest"
	"peerlink/node/nodetype"
)

// The metrics of a link correspond to a running service: the messages sent and received,
// and the expiry of the certificate of the peer's server.
func TestMetricsOfService(t *testing.T) {
	authority, other := linktest.Pair(t, nodetype.CreditorsAgent)
	s := open(t, Config{Status: other.Service.Status})
	authority.WriteServerCert(t, authority.CertFile, authority.KeyFile, 24*time.Hour)
	pair, err := tls.LoadX509KeyPair(authority.CertFile, authority.KeyFile)
	if err != nil {
		t.Fatal(err)
	}
	if err := authority.Stop(); err != nil {
		t.Fatal(err)
	}
	authority.Start()
	other.Put(authority, linktest.Message(t, other, authority, 1))
	authority.Take(1)
	other.WaitDrained(authority, 0)

	id := authority.Identity().ID
	_, text, _ := ask(t, s, "GET", "/metrics", "")
	for _, want := range []string{
		fmt.Sprintf(`peerlink_certificate_expiry_timestamp_seconds{peer="%s",role="peer_server"} %g`, id, float64(pair.Leaf.NotAfter.Unix())),
		fmt.Sprintf(`peerlink_messages_confirmed_total{peer="%s"} 1`, id),
		`peerlink_peers{state="active"} 1`,
	} {
		if !strings.Contains(text, want+"\n") {
			t.Errorf("no %s in\n%s", want, text)
		}
	}
}
