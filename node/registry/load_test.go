package registry

import (
	"context"
	"crypto/ed25519"
	"errors"
	"io"
	"io/fs"
	"log"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// load accepts lists only from permitted sources, with a signature if the source or
// the caller requires one, and follows only permitted redirects.
func TestLoad(t *testing.T) {
	plain := []byte(head + good("00000001"))
	signed, err := sign(plain, publisher)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "registry.toml")
	if err := os.WriteFile(file, signed, 0o600); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	serve := func(path string, data []byte) {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { w.Write(data) })
	}
	redirect := func(path string, to func() string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, to(), http.StatusFound) })
	}
	web := httptest.NewTLSServer(mux)
	defer web.Close()
	insecure := httptest.NewServer(mux)
	defer insecure.Close()
	elsewhere := httptest.NewTLSServer(mux)
	defer elsewhere.Close()
	serve("/plain", plain)
	serve("/signed", signed)
	serve("/page", []byte("<html>"))
	redirect("/moved", func() string { return "/plain" })
	redirect("/loop", func() string { return "/loop" })
	redirect("/other", func() string { return elsewhere.URL + "/plain" })
	redirect("/down", func() string { return insecure.URL + "/plain" })
	redirect("/up", func() string { return web.URL + "/signed" })
	redirect("/file", func() string { return "file://" + file })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		for {
			if _, err := io.WriteString(w, strings.Repeat("#\n", 1<<14)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/secret", func(w http.ResponseWriter, r *http.Request) {
		panic(http.ErrAbortHandler) // cuts the connection
	})
	// The two servers with TLS share a certificate.
	transport := web.Client().Transport
	for _, c := range []struct {
		name, source string
		key          ed25519.PublicKey
		want         string // part of the error; "" for success
	}{
		{"file", file, publisherKey, ""},
		{"file, no key given", file, nil, ""},
		{"file, another key", file, strangerKey, errSignature.Error()},
		{"a folder", dir, nil, "not a regular file"},
		{"another scheme", "ftp://x/y", nil, "https or http"},
		{"no URL", "https://[", nil, "not a valid URL"},
		{"https", web.URL + "/plain", nil, ""},
		{"https, unsigned with key", web.URL + "/plain", publisherKey, errUnsigned.Error()},
		{"https, signed", web.URL + "/signed", publisherKey, ""},
		{"http", insecure.URL + "/signed", nil, errUnsigned.Error()},
		{"http, unsigned", insecure.URL + "/plain", publisherKey, errUnsigned.Error()},
		{"http, signed", insecure.URL + "/signed", publisherKey, ""},
		{"not found", web.URL + "/none", nil, "404"},
		{"a page", web.URL + "/page", nil, errFormat.Error()},
		{"redirect", web.URL + "/moved", nil, ""},
		{"redirect for ever", web.URL + "/loop", nil, "redirects"},
		{"redirect to another server", web.URL + "/other", nil, "redirects to"},
		{"redirect to http", web.URL + "/down", publisherKey, "redirects to"},
		{"redirect to https", insecure.URL + "/up", publisherKey, ""},
		{"redirect to a file", web.URL + "/file", nil, "redirects to"},
		{"endless", web.URL + "/endless", nil, "larger than"},
		{"cut", strings.Replace(web.URL, "://", "://me:hunter2@", 1) + "/secret?token=hunter2", nil, "EOF"},
	} {
		l, err := load(context.Background(), c.source, c.key, now, transport)
		switch {
		case c.want == "" && (err != nil || l.Len() != 1):
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: got %v, want an error with %q", c.name, err, c.want)
		case err != nil && strings.Contains(err.Error(), "hunter2"):
			t.Errorf("%s: the error contains a secret: %q", c.name, err)
		}
	}
}

// For a missing file, the error is fs.ErrNotExist.
func TestLoadAbsent(t *testing.T) {
	if _, err := Load(context.Background(), filepath.Join(t.TempDir(), "none"), nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want %v", err, fs.ErrNotExist)
	}
}

// No request is sent to a server with a certificate that the system does not trust.
func TestLoadUntrusted(t *testing.T) {
	requested := false
	web := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { requested = true }))
	web.Config.ErrorLog = log.New(io.Discard, "", 0)
	web.StartTLS()
	_, err := Load(context.Background(), web.URL, nil)
	web.Close()
	if err == nil || !strings.Contains(err.Error(), "certificate") || requested {
		t.Errorf("got %v, requested: %v", err, requested)
	}
}

// load returns when its context is cancelled, even if the server sends nothing.
func TestLoadCancelled(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	web := httptest.NewTLSServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
		panic(http.ErrAbortHandler) // otherwise status 200 is sent, and may arrive while the client closes the connection
	}))
	defer web.Close()
	_, err := load(ctx, web.URL, nil, now, web.Client().Transport)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want %v", err, context.Canceled)
	}
}

// All IDs in a text are found, in whatever form it lists them, and nothing that is a part of a longer word.
func TestUsedIDs(t *testing.T) {
	path := filepath.Join(t.TempDir(), "list.html")
	text := `<tr><td>Bank</td><td><code>1000ABCD</code></td><td>2026-11-30</td></tr>
id = "1000abce"; |10001234| sha256:3b1c7f5c9f0a4d5e8e6f7a8b9c0d1e2f, 1000abcdef, x1000abca, 1000_bcd, 1000abc`
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	ids, err := UsedIDs(t.Context(), path)
	if want := map[string]bool{"1000abcd": true, "1000abce": true, "10001234": true}; err != nil || !maps.Equal(ids, want) {
		t.Errorf("got %v, %v, want %v", ids, err, want)
	}
	if _, err := UsedIDs(t.Context(), "http://example.com/list"); !errors.Is(err, errUnsigned) {
		t.Errorf("by plain http: %v", err)
	}
}
