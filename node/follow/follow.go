// Package follow fetches the info-bundle that another node publishes, to get the current addresses
// of the node's servers.
//
// The URL comes from the other node, and is not trusted: a fetch is bounded in size and time,
// connects only to the host in the URL, and by default never to this machine or its own network. A
// fetched info-bundle is returned only if it is valid, and signed with the root key that was pinned
// when the two nodes became peers. It may still be an old one, because an attacker who controls the
// server or the network can withhold newer bundles. Therefore callers must compare the dates, as
// [peerlink/node.Dir.ReplaceNodeinfo] does.
package follow

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"strings"
	"time"

	"peerlink/node/infobundle"
)

var (
	// ErrUnchanged means that the server still has the same bundle.
	ErrUnchanged = errors.New("unchanged since it was last fetched")
	// errLocal means that a URL leads to an address of this machine or its own network, which
	// URLs of other nodes must not access.
	errLocal = errors.New("an address of this machine, of its own network, or not of a single host (such as multicast)")
	// errRedirect means that the server redirects to a URL that checkRedirect does not allow, or
	// too often.
	errRedirect = errors.New("redirect not allowed")
	// errStatus means that the server's response has a status other than 200 and 304.
	errStatus = errors.New("the server has not returned the file")
	// errTooLarge means that the response is larger than an info-bundle may be.
	errTooLarge = errors.New("larger than the file may be")
	// ErrNotFound means that the server does not have the file.
	ErrNotFound = fmt.Errorf("%w: the server answers 404 Not Found", errStatus)
	// errOtherNode means that the bundle is valid, but has another root certificate.
	errOtherNode = errors.New("the info-bundle has another root certificate")
)

// Bounds on one fetch.
const (
	maxTime      = 30 * time.Second // from looking up the host to the last byte
	maxRedirects = 5
	maxHeader    = 64 << 10 // bytes of the header of a response
	maxTag       = 256      // bytes of an ETag

	maxCertificate = 64 << 10 // bytes of a certificate's file
)

// Tag identifies a version of the info-bundle on a server, by the ETag and Last-Modified headers.
// The zero Tag identifies no version.
type Tag struct {
	etag, lastModified string
}

// tagOf returns the Tag in a server's response. It ignores values that are too long or have
// characters outside of printable ASCII.
func tagOf(h http.Header) Tag {
	printable := func(s string) string {
		if len(s) > maxTag || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return ""
		}
		return s
	}
	return Tag{printable(h.Get("ETag")), printable(h.Get("Last-Modified"))}
}

// A Fetcher fetches info-bundles. Its zero value is ready for use. It can be used by several
// goroutines at once.
type Fetcher struct {
	// AllowLocal allows URLs that lead to any address, such as loopback, link-local and private
	// ones and those of OwnHosts, for tests and for nodes on one private network.
	AllowLocal bool
	// OwnHosts are the public names or addresses of this machine, which may differ from the
	// addresses of its interfaces: for example, the address of the router through which this
	// machine is reached. Without AllowLocal, URLs must not lead to them either.
	OwnHosts []string
	// Roots are the authorities whose certificates https servers may have; nil means the system's.
	Roots *x509.CertPool

	ownHostAddrs []netip.Addr               // addresses of OwnHosts, during a fetch
	interfaces   func() ([]net.Addr, error) // replaces the machine's interfaces in tests

	maxTime time.Duration // replaces the constant in tests
}

// Fetch fetches the info-bundle at an http or https URL. root is the pinned root certificate of the
// node that publishes the bundle. known is the Tag returned with an earlier bundle from the same
// URL, or the zero Tag: if the server still has that version, Fetch fails with [ErrUnchanged]
// without downloading it.
//
// Other errors wrap [infobundle.ErrInvalid] if the bundle is invalid, come from the network, or
// report that the URL, a redirect or the response is not allowed, or that the bundle is another
// node's.
func (f *Fetcher) Fetch(ctx context.Context, from string, root *x509.Certificate, known Tag) (*infobundle.Bundle, Tag, error) {
	data, tag, err := f.fetch(ctx, from, known, infobundle.MaxSize)
	if err != nil {
		return nil, Tag{}, err
	}
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return nil, Tag{}, err
	}
	if !b.Root.Equal(root) {
		return nil, Tag{}, fmt.Errorf("%w than the pinned one: it is that of %s", errOtherNode, b.Identity)
	}
	return b, tag, nil
}

// FetchNew fetches the info-bundle of a node whose root certificate is not known yet. Whose bundle it is
// has to be confirmed by other means.
func (f *Fetcher) FetchNew(ctx context.Context, from string) (*infobundle.Bundle, error) {
	data, _, err := f.fetch(ctx, from, Tag{}, infobundle.MaxSize)
	if err != nil {
		return nil, err
	}
	return infobundle.Read(data, time.Now())
}

// FetchCertificate fetches a file with a certificate, which it does not check. It fails with
// [ErrNotFound] if the server does not have the file.
func (f *Fetcher) FetchCertificate(ctx context.Context, from string) ([]byte, error) {
	data, _, err := f.fetch(ctx, from, Tag{}, maxCertificate)
	return data, err
}

// fetch returns the content at a URL, if it has at most max bytes.
func (f *Fetcher) fetch(ctx context.Context, from string, known Tag, max int64) (data []byte, tag Tag, err error) {
	limit := f.maxTime
	if limit == 0 {
		limit = maxTime
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not complete within %v", limit))
	defer cancel()
	if !f.AllowLocal {
		fetcher := *f
		fetcher.ownHostAddrs = lookupOwnHosts(ctx, f.OwnHosts)
		f = &fetcher
	}
	data, tag, err = f.get(ctx, from, known, max)
	if errors.Is(err, context.DeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return data, tag, err
}

// get returns the content at a URL, if it has at most max bytes.
func (f *Fetcher) get(ctx context.Context, from string, known Tag, max int64) (data []byte, tag Tag, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, from, nil)
	if err != nil {
		return nil, tag, err
	}
	req.Header.Set("User-Agent", "peerlink")
	if known.etag != "" {
		req.Header.Set("If-None-Match", known.etag)
	}
	if known.lastModified != "" {
		req.Header.Set("If-Modified-Since", known.lastModified)
	}
	client := http.Client{Transport: f.transport(), CheckRedirect: checkRedirect}
	resp, err := client.Do(req)
	if err != nil {
		return nil, tag, withoutURL(err)
	}
	defer resp.Body.Close()
	switch {
	case resp.StatusCode == http.StatusNotModified && known != Tag{}:
		return nil, tag, ErrUnchanged
	case resp.StatusCode == http.StatusNotFound:
		return nil, tag, ErrNotFound
	case resp.StatusCode != http.StatusOK:
		return nil, tag, fmt.Errorf("%w: the server answers %d %s", errStatus, resp.StatusCode, http.StatusText(resp.StatusCode))
	case resp.ContentLength > max:
		return nil, tag, fmt.Errorf("%w: %d bytes, at most %d are allowed", errTooLarge, resp.ContentLength, max)
	}
	data, err = io.ReadAll(io.LimitReader(resp.Body, max+1))
	if err != nil {
		return nil, tag, err
	}
	if int64(len(data)) > max {
		return nil, tag, fmt.Errorf("%w: more than the %d bytes allowed", errTooLarge, max)
	}
	return data, tagOf(resp.Header), nil
}

// transport returns a new transport for one fetch, so that no connection remains after it. It uses
// no proxy, because a proxy would resolve names, and the addresses could not be checked. It does not
// decompress responses: an info-bundle is already compressed, and decompression could be exploited
// to exceed the size limit.
func (f *Fetcher) transport() *http.Transport {
	dialer := &net.Dialer{Control: f.control}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: f.Roots},
		MaxResponseHeaderBytes: maxHeader,
		DisableKeepAlives:      true,
		DisableCompression:     true,
	}
}

// checkRedirect allows redirects to another path of the same host and port, and from http to
// https on the same host, but none to another host, because the peer has not published that
// host, and none with a user name.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d times", errRedirect, maxRedirects)
	}
	from, to := via[len(via)-1].URL, req.URL
	sameServer := to.Scheme == from.Scheme && strings.EqualFold(to.Host, from.Host)
	upgrade := from.Scheme == "http" && to.Scheme == "https" && strings.EqualFold(to.Hostname(), from.Hostname())
	if to.User != nil || !sameServer && !upgrade {
		return fmt.Errorf("%w: from %.100q to %.100q; only the same scheme, host and port, or https instead of http on the same host, are allowed, without a user name", errRedirect, from.Scheme+"://"+from.Host, to.Scheme+"://"+to.Host)
	}
	return nil
}

// withoutURL removes the URL, which the caller has, from an error of package http.
func withoutURL(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}
