// Package follow fetches the info-bundle that another node publishes, to find
// out where the node has moved.
//
// The address comes from that node, so it may be anything: what is fetched is
// bounded in size and time, is taken from the named host and no other, and by
// default never from this machine or its own network. What comes back is handed
// out only if it is a sound info-bundle, signed with the root key that was pinned
// when the two nodes became peers. It may still be an old one: an attacker who sits
// between, or serves it, can keep a newer one back. So compare the dates, as
// [peerlink/node.Dir.UpdatePeer] does.
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
	// ErrUnchanged means that the server has the bundle that it had last time.
	ErrUnchanged = errors.New("unchanged since it was last fetched")
	// ErrLocal means that an address belongs to this machine or its own network,
	// where a stranger's URL must not lead.
	ErrLocal = errors.New("an address of this machine, of its own network, or of no single host")
	// ErrRedirect means that the server sends us somewhere else.
	ErrRedirect = errors.New("redirected elsewhere")
	// ErrStatus means that the server has answered, but with no info-bundle.
	ErrStatus = errors.New("no info-bundle there")
	// ErrTooLarge means that the answer has more bytes than an info-bundle may have.
	ErrTooLarge = errors.New("larger than an info-bundle may be")
	// ErrOtherNode means that the bundle is sound, but was made with another root
	// certificate.
	ErrOtherNode = errors.New("the info-bundle of somebody else")
)

// Bounds on one fetch.
const (
	maxTime      = 30 * time.Second // from looking up the host to the last byte
	maxRedirects = 5
	maxHeader    = 64 << 10
	maxTag       = 256 // bytes of an ETag
)

// Tag is how a server names one version of what it serves. The zero Tag names
// none.
type Tag struct {
	etag, lastModified string
}

// tagOf reads a server's answer. What is not a plain short line is no name.
func tagOf(h http.Header) Tag {
	plain := func(s string) string {
		if len(s) > maxTag || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }) {
			return ""
		}
		return s
	}
	return Tag{plain(h.Get("ETag")), plain(h.Get("Last-Modified"))}
}

// A Fetcher fetches info-bundles. Its zero value is ready for use, also by
// several goroutines at once.
type Fetcher struct {
	// AllowLocal lets URLs lead to loopback, link-local and private addresses, for
	// tests and for nodes on one private network.
	AllowLocal bool
	// OwnHosts are names or addresses by which others reach this machine. URLs must
	// not lead there either: what answers may trust this machine, or belong to its
	// network, and its interfaces need not have the address that others see.
	OwnHosts []string

	published  []netip.Addr               // those of OwnHosts, during a fetch
	interfaces func() ([]net.Addr, error) // instead of the machine's, for tests

	maxTime time.Duration  // instead of the constant, for tests
	roots   *x509.CertPool // instead of the system's, for tests
}

// Fetch gets the info-bundle at a URL with http or https. root is the pinned
// root certificate of the node that has to have made it. known is the Tag that
// came with an earlier bundle from the same URL: if that is still the one, Fetch
// fails with [ErrUnchanged], at little cost for both sides.
//
// Other errors wrap one of this package's, or [infobundle.ErrInvalid], or come
// from the network.
func (f *Fetcher) Fetch(ctx context.Context, from string, root *x509.Certificate, known Tag) (*infobundle.Bundle, Tag, error) {
	limit := f.maxTime
	if limit == 0 {
		limit = maxTime
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, fmt.Errorf("not complete within %v", limit))
	defer cancel()
	if !f.AllowLocal {
		fetcher := *f
		fetcher.published = lookupOwn(ctx, f.OwnHosts)
		f = &fetcher
	}
	data, tag, err := f.get(ctx, from, known)
	if errors.Is(err, context.DeadlineExceeded) {
		err = context.Cause(ctx)
	}
	if err != nil {
		return nil, Tag{}, err
	}
	b, err := infobundle.Read(data, time.Now())
	if err != nil {
		return nil, Tag{}, err
	}
	if !b.Root.Equal(root) {
		return nil, Tag{}, fmt.Errorf("%w: of %s, whose root certificate is not the one that is pinned", ErrOtherNode, b.Identity)
	}
	return b, tag, nil
}

// get gets the bytes at a URL.
func (f *Fetcher) get(ctx context.Context, from string, known Tag) (data []byte, tag Tag, err error) {
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
	case resp.StatusCode != http.StatusOK:
		return nil, tag, fmt.Errorf("%w: the server answers %d %s", ErrStatus, resp.StatusCode, http.StatusText(resp.StatusCode))
	case resp.ContentLength > infobundle.MaxSize:
		return nil, tag, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrTooLarge, resp.ContentLength, infobundle.MaxSize)
	}
	data, err = io.ReadAll(io.LimitReader(resp.Body, infobundle.MaxSize+1))
	if err != nil {
		return nil, tag, err
	}
	if len(data) > infobundle.MaxSize {
		return nil, tag, fmt.Errorf("%w: more than the %d bytes allowed", ErrTooLarge, infobundle.MaxSize)
	}
	return data, tagOf(resp.Header), nil
}

// transport is made anew for each fetch, so that nothing outlives it. There is
// no proxy: it would look up names for us, and we could not see where they lead.
// There is no decompression either: an info-bundle is compressed, and so would
// be a bomb.
func (f *Fetcher) transport() *http.Transport {
	dialer := &net.Dialer{Control: f.control}
	return &http.Transport{
		DialContext:            dialer.DialContext,
		TLSClientConfig:        &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: f.roots},
		MaxResponseHeaderBytes: maxHeader,
		DisableKeepAlives:      true,
		DisableCompression:     true,
	}
}

// checkRedirect lets a server move the bundle to another path, and from http to
// https, but not to another host: that one has not been named by the peer.
func checkRedirect(req *http.Request, via []*http.Request) error {
	if len(via) > maxRedirects {
		return fmt.Errorf("%w: more than %d times", ErrRedirect, maxRedirects)
	}
	from, to := via[len(via)-1].URL, req.URL
	sameServer := to.Scheme == from.Scheme && strings.EqualFold(to.Host, from.Host)
	upgrade := from.Scheme == "http" && to.Scheme == "https" && strings.EqualFold(to.Hostname(), from.Hostname())
	if to.User != nil || !sameServer && !upgrade {
		return fmt.Errorf("%w: to %.100q, which is another host than %s", ErrRedirect, to.Scheme+"://"+to.Host, from.Host)
	}
	return nil
}

// withoutURL removes the URL from an error of package http: the caller knows it.
func withoutURL(err error) error {
	if ue, ok := errors.AsType[*url.Error](err); ok {
		return ue.Err
	}
	return err
}
