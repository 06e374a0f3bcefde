package node_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"peerlink/node"
	"peerlink/node/nodetest"
	"peerlink/stomp"
)

// A node announces the first of its https URLs that fits into a STOMP header together with the longest
// other headers, so that no URL keeps it from connecting, and its peers accept it.
func TestAnnouncedBundleURL(t *testing.T) {
	t.Parallel()
	a := nodetest.New(t, aa, "a.example.com:1234")
	const good = "https://new.example:8443/info-bundle.zip"
	pad := func(u string, size int) string { return u + strings.Repeat("x", size-len(u)) }
	for _, tt := range []struct {
		urls []string
		want string
	}{
		{nil, ""},
		{[]string{"http://a.example/"}, ""},
		{[]string{"http://a.example/", good, "https://b.example/"}, good},
		{[]string{"ftp://a.example/", good}, good},
		{[]string{pad("https://a.example/", 499)}, pad("https://a.example/", 499)},
		{[]string{pad("https://a.example/", 500), good}, good},                         // the colon is escaped
		{[]string{pad("https://a.example:1/", 499), good}, good},                       // so is the other one
		{[]string{pad(`https://a.example/?\`, 498)}, pad(`https://a.example/?\`, 498)}, // and a backslash
		{[]string{pad(`https://a.example/?\`, 499), good}, good},
		{[]string{"https://a.example/é"}, "https://a.example/é"},
	} {
		quoted := make([]string, len(tt.urls))
		for i, u := range tt.urls {
			quoted[i] = "'" + u + "'"
		}
		data := fmt.Appendf(node.EncodeStompTOML(aa, []string{"a.example.com:1234"}), "%s = [%s]\n", node.BundleURLsKey, strings.Join(quoted, ", "))
		if err := os.WriteFile(filepath.Join(a.Path(), "nodeinfo", "stomp.toml"), data, 0o644); err != nil {
			t.Fatal(err)
		}
		got := a.AnnouncedBundleURL()
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.urls, got, tt.want)
		}
		if got == "" {
			continue
		}
		if err := node.CheckAnnouncedBundleURL(got); err != nil {
			t.Errorf("a peer refuses %q: %v", got, err)
		}
		long := strings.Repeat("x", stomp.DefaultLimits().HeaderValue)
		conn, closed := net.Pipe()
		closed.Close()
		_, err := stomp.NewClient(t.Context(), conn, stomp.ClientConfig{Host: long, Login: &long, Passcode: &long, Headers: []stomp.Header{{Name: "info-bundle-url", Value: got}}})
		if err == nil || errors.Is(err, stomp.ErrUnsendable) {
			t.Errorf("%q: %v, want the error of a closed connection", got, err)
		}
	}
}

// What is not an https URL of the form that stomp.toml may have is not used if a peer announces it.
func TestCheckAnnouncedBundleURL(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{
		"", "a", "http://a.example/", "HTTP://a.example/", "https://", "https:a", "https:///x", "https://me:secret@a.example/", "https://a.example:0/",
		"https://a.example/#x", "https://[fe80::1%25eth0]/", "https://a.example/\n", "https://a.example/" + strings.Repeat("x", 500),
	} {
		if err := node.CheckAnnouncedBundleURL(bad); err == nil || strings.Contains(err.Error(), "secret") || len(err.Error()) > 300 {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if err := node.CheckAnnouncedBundleURL("https://a.example:8443/x.zip?y"); err != nil {
		t.Error(err)
	}
}
