package node_test

import (
	"strings"
	"testing"

	"peerlink/node"
)

// A stomp.toml is read as the reference reads it, and refused with a message
// that says what is wrong.
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
		{"not toml", "stomp.toml"},
		{strings.Repeat("#", 65537), "more than"},
	} {
		if _, err := node.ParseStompTOML([]byte(tt.toml), "x"); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%.60q: error is %v, want %q", tt.toml, err, tt.want)
		}
	}
}

// Any bytes give a manifest that keeps its promises, or an error.
func FuzzParseStompTOML(f *testing.F) {
	f.Add([]byte("servers = [\"a.example.com:1\"]\nhost = \"/\"\ndestination = \"/exchange/x\"\nlogin = \"a\"\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		c, err := node.ParseStompTOML(data, "1234abcd")
		if err != nil {
			return
		}
		for _, s := range c.Servers {
			if node.CheckServer(s) != nil {
				t.Errorf("accepted the server %q", s)
			}
		}
		if len(c.Servers) == 0 || len(c.AcceptedContentTypes) == 0 {
			t.Errorf("accepted %+v", c)
		}
	})
}
