package registry

import (
	"context"
	"crypto/ed25519"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
	"unicode"

	"peerlink/internal/textfile"
)

// Bounds on fetching a list.
const (
	fetchTime    = 30 * time.Second // from looking up the server to the last byte
	maxRedirects = 5
	maxHeader    = 64 << 10 // bytes of the header of a response
)

// Load reads a list from a file or a server, and verifies its signature if key is not nil. source
// is the path of a file, or an https or http URL. Load fails if the list is malformed or no longer
// valid. It does not fetch a list by plain http without a key.
//
// Redirects are followed on the same server only, and never from https to http. Fetching takes
// at most 30 seconds and reads at most 1 MiB.
func Load(ctx context.Context, source string, key ed25519.PublicKey) (*List, error) {
	return load(ctx, source, key, time.Now(), newTransport())
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12},
		MaxResponseHeaderBytes: maxHeader,
		DisableKeepAlives:      true, // no connection remains after the call
	}
}

// UsedIDs returns the IDs of accounting authorities that occur anywhere in a text, such as a list of this
// package, a web page or a table: all words of 8 hex digits, in lower case. source is the path of a
// file, or an https URL, which is fetched as by [Load]. Without a signature the result is only good for
// avoiding these IDs.
func UsedIDs(ctx context.Context, source string) (map[string]bool, error) {
	return usedIDs(ctx, source, newTransport())
}

func usedIDs(ctx context.Context, source string, transport http.RoundTripper) (map[string]bool, error) {
	data, shown, err := read(ctx, source, nil, transport)
	if err != nil {
		return nil, fmt.Errorf("list of accounting authorities %s: %w", shown, err)
	}
	isHex := func(r rune) bool { return strings.ContainsRune("0123456789abcdefABCDEF", r) }
	inWord := func(r rune) bool { return r == '_' || unicode.IsLetter(r) || unicode.IsDigit(r) }
	ids := make(map[string]bool)
	for word := range strings.FieldsFuncSeq(string(data), func(r rune) bool { return !inWord(r) }) {
		if len(word) == 8 && strings.TrimFunc(word, isHex) == "" {
			ids[strings.ToLower(word)] = true
		}
	}
	if len(ids) == 0 {
		return nil, fmt.Errorf("list of accounting authorities %s: no ID of 8 hex digits is in it", shown)
	}
	return ids, nil
}

func load(ctx context.Context, source string, key ed25519.PublicKey, now time.Time, transport http.RoundTripper) (*List, error) {
	data, shown, err := read(ctx, source, key, transport)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", shown, err)
	}
	l, err := parse(data, key, now)
	if err != nil {
		return nil, fmt.Errorf("registry %s: %w", shown, err)
	}
	return l, nil
}

// read returns the content of a list, and the name of its source for messages.
func read(ctx context.Context, source string, key ed25519.PublicKey, transport http.RoundTripper) (data []byte, shown string, err error) {
	scheme, _, isURL := strings.Cut(source, "://")
	if !isURL {
		data, err = readFile(source)
		return data, source, err
	}
	u, err := url.Parse(source)
	if err != nil {
		return nil, scheme + " address", errors.New("not a valid URL")
	}
	// The query and the user information may be secret.
	withoutSecrets := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path}
	shown = withoutSecrets.String()
	switch {
	case u.Scheme == "http" && key == nil:
		err = fmt.Errorf("%w: by plain http anybody on the way could have written it; use https, or give the publisher's key", errUnsigned)
	case u.Scheme == "http" || u.Scheme == "https":
		data, err = fetch(ctx, u, transport)
	default:
		err = errors.New("expected the path of a file, or a URL with https or http")
	}
	return data, shown, err
}

func readFile(path string) ([]byte, error) {
	fi, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readBounded(f)
}

func readBounded(r io.Reader) ([]byte, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxList+1))
	if err == nil && len(data) > maxList {
		err = tooLarge()
	}
	if err != nil {
		return nil, err
	}
	return textfile.Decode(data)
}

func fetch(ctx context.Context, u *url.URL, transport http.RoundTripper) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, errors.New("not a valid URL")
	}
	client := http.Client{Transport: transport, CheckRedirect: checkRedirect}
	resp, err := client.Do(req)
	if err != nil {
		return nil, withoutURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("the server answers %d %s: expected the list", resp.StatusCode, http.StatusText(resp.StatusCode))
	}
	return readBounded(resp.Body)
}

// checkRedirect allows redirects to another path of the same server, and from http to https.
// Other servers are not trusted to provide the list.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("more than %d redirects", maxRedirects)
	}
	from, to := via[len(via)-1].URL, req.URL
	sameServer := to.Scheme == from.Scheme && to.Host == from.Host
	upgrade := from.Scheme == "http" && to.Scheme == "https" && to.Hostname() == from.Hostname()
	if !sameServer && !upgrade {
		return fmt.Errorf("the server redirects to %s://%s: expected it to stay on %s://%s; if you trust the other server, give its address instead",
			to.Scheme, printable(to.Host), from.Scheme, from.Host)
	}
	return nil
}

// withoutURL removes the URL, which may contain secrets, from an error of package http.
func withoutURL(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}
