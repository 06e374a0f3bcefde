package node_test

import (
	"strings"
	"testing"

	"peerlink/internal/costtest"
	"peerlink/node"
)

// A stomp.toml is read as the reference reads it. An invalid one is rejected with an
// error that describes the cause.
func TestParseStompTOML(t *testing.T) {
	const rest = "host = \"/${NODE_ID}\"\ndestination = \"/exchange/x.${NODE_ID}\"\n"
	c, err := node.ParseStompTOML([]byte(`servers = ["a.example.com:1", "127.0.0.1:65535", "a.example.com:1"]`+"\n"+rest+
		"login = \"me-${NODE_ID}\"\npasscode = \"p${NODE_ID}\"\naccepted-content-types = [\"x/y\"]\nfuture = 1\n"), "1234abcd")
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Servers) != 3 || c.Host != "/1234abcd" || c.Destination != "/exchange/x.1234abcd" || *c.Login != "me-1234abcd" ||
		*c.Passcode != "p${NODE_ID}" || strings.Join(c.AcceptedContentTypes, " ") != "x/y application/json" {
		t.Errorf("got %+v", c)
	}
	for _, tt := range []struct{ toml, want string }{
		{"", "1 to 100 servers"},
		{"servers = []\n" + rest, "1 to 100 servers"},
		{"servers = \"a:1\"\n" + rest, "stomp.toml"},
		{"servers = [1]\n" + rest, "stomp.toml"},
		{"servers = [\"a\"]\n" + rest, "has no port"},
		{"servers = [\"a:0\"]\n" + rest, "no valid port"},
		{"servers = [\"a:65536\"]\n" + rest, "no valid port"},
		{"servers = [\"a:+1\"]\n" + rest, "no valid port"},
		{"servers = [\":1\"]\n" + rest, "no valid host"},
		{"servers = [\"-a:1\"]\n" + rest, "not a valid host"},
		{"servers = [\"a b:1\"]\n" + rest, "not a valid host"},
		{"servers = [\"[::1]:1\"]\n" + rest, "IPv6"},
		{"servers = [\"a:1\"]\n", "host and destination"},
		{"servers = [\"a:1\"]\nhost = 1\ndestination = \"x\"", "stomp.toml"},
		{"servers = [\"a:1\"]\nhost = \"x\"\ndestination = \"" + strings.Repeat("x", 501) + "\"", "destination has 501 bytes"},
		{"servers = [\"a:1\"]\nhost = \"\\u001b[31m\"\ndestination = \"x\"", "host has a control character"},
		{"servers = [\"a:1\"]\n" + rest + "passcode = \"a\\u0000\"", "passcode has a control character"},
		{"not toml", "stomp.toml"},
		{strings.Repeat("#", 65537), "more than"},
	} {
		if _, err := node.ParseStompTOML([]byte(tt.toml), "x"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: error is %v, want %q", tt.toml, err, tt.want)
		}
	}
}

// Usable URLs of the info-bundle are returned. The error describes the defects of the
// other URLs, without secrets, and the servers can be used nevertheless.
func TestBundleURLs(t *testing.T) {
	const servers = "servers = [\"a:1\"]\nhost = \"/\"\ndestination = \"/x\"\n"
	for _, tt := range []struct {
		value string
		urls  string // in the order of the file
		want  string // part of the error; empty for none
	}{
		{`[]`, "", ""},
		{`["https://example.com/a.zip", "http://192.0.2.1:8080/"]`, "https://example.com/a.zip http://192.0.2.1:8080/", ""},
		{`["http://[2001:db8::1]:80/x?y=z"]`, "http://[2001:db8::1]:80/x?y=z", ""},
		{`["https://example.com"]`, "https://example.com", ""},
		{`"https://example.com/"`, "", "expected a list"},
		{`5`, "", "expected a list"},
		{`[5, "https://example.com/"]`, "https://example.com/", "to be a string"},
		{`["ftp://example.com/", "http://b/"]`, "http://b/", "must start with https:// or http://"},
		{`["file:///etc/passwd"]`, "", "must start with"},
		{`["HTTPS:example.com"]`, "", "not a URL"},
		{`["example.com/x"]`, "", "must start with"},
		{`["https://me:hunter2@example.com/"]`, "", "user name or a password"},
		{`["https://example.com/#x"]`, "", "fragment"},
		{`["https:///x"]`, "", "no valid host"},
		{`["https://-a/"]`, "", "no valid host"},
		{`["https://a b/"]`, "", "not a URL"},
		{`["https://a\u0000/"]`, "", "not a URL"},
		{`["https://a:/"]`, "", "a port from 1"},
		{`["https://a:0/"]`, "", "a port from 1"},
		{`["https://a:65536/"]`, "", "a port from 1"},
		{`["http://[fe80::1%25eth0]/"]`, "", "zone"},
		{`["http://a/` + strings.Repeat("x", 500) + `"]`, "", "more than the 500"},
		{`["http://a", "http://b", "http://c", "http://d", "http://e"]`, "http://a http://b http://c http://d", "5 URLs, more than the 4"},
	} {
		c, err := node.ParseStompTOML([]byte(servers+"info-bundle-urls = "+tt.value+"\n"), "x")
		if err != nil {
			t.Errorf("%.60s: %v", tt.value, err)
			continue
		}
		if got := strings.Join(c.BundleURLs, " "); got != tt.urls {
			t.Errorf("%.60s: URLs %s, want %s", tt.value, got, tt.urls)
		}
		problem := ""
		if c.BundleURLsErr != nil {
			problem = c.BundleURLsErr.Error()
		}
		if (problem == "") != (tt.want == "") || !strings.Contains(problem, tt.want) || strings.Contains(problem, "hunter2") {
			t.Errorf("%.60s: problem %q, want %q", tt.value, problem, tt.want)
		}
	}
}

// For any input, ParseStompTOML returns a valid manifest or an error, at little cost.
func FuzzParseStompTOML(f *testing.F) {
	for _, doc := range hostileTOML() {
		f.Add([]byte(doc))
	}
	f.Add([]byte("servers = [\"a.example.com:1\"]\nhost = \"/\"\ndestination = \"/exchange/x\"\nlogin = \"a\"\ninfo-bundle-urls = [\"https://example.com/x.zip\"]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var c *node.StompConfig
		var err error
		costtest.Check(t, "the input", func() { c, err = node.ParseStompTOML(data, "1234abcd") })
		if err != nil {
			return
		}
		for _, s := range c.Servers {
			if node.CheckServer(s) != nil {
				t.Errorf("accepted the server %q", s)
			}
		}
		for _, u := range c.BundleURLs {
			if node.CheckBundleURL(u) != nil {
				t.Errorf("accepted the URL %q", u)
			}
		}
		if len(c.BundleURLs) > node.MaxBundleURLs || len(c.Servers) == 0 || len(c.AcceptedContentTypes) == 0 {
			t.Errorf("accepted %+v", c)
		}
	})
}
