package node

import (
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"strconv"
	"strings"

	"peerlink/internal/excerpt"
)

// BundleURLsKey is the key in stomp.toml for the list of URLs at which a node
// publishes its newest info-bundle. The key is not in the specification, which
// allows additional keys: implementations ignore the keys that they do not support.
const BundleURLsKey = "info-bundle-urls"

// Bounds on the list under BundleURLsKey.
const (
	MaxBundleURLs    = 4
	maxBundleURLSize = 500 // bytes
)

// CheckBundleURL checks a URL from the list under [BundleURLsKey]. The scheme must be
// http or https; a host is required; a user and a fragment are not allowed. Plain
// http is sufficient, because an info-bundle is signed.
func CheckBundleURL(s string) error {
	if len(s) > maxBundleURLSize {
		return fmt.Errorf("%q has %d bytes, more than the %d allowed", excerpt.Of(s), len(s), maxBundleURLSize)
	}
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Opaque != "":
		return fmt.Errorf("%q is not a URL: expected for example \"https://example.com/info-bundle.zip\"", excerpt.Of(s))
	case u.Scheme != "http" && u.Scheme != "https":
		return fmt.Errorf("%q must start with https:// or http://", excerpt.Of(s))
	case u.User != nil:
		// The URL is not part of the error, because it may contain a password.
		return errors.New("a URL must not contain a user name or a password, because every peer would learn them")
	case u.Fragment != "":
		return fmt.Errorf("%q has a fragment (#…), which means nothing here: leave it out", excerpt.Of(s))
	}
	if err := checkURLHost(u); err != nil {
		return fmt.Errorf("%q has no valid host: %w", excerpt.Of(s), err)
	}
	return nil
}

// CheckAnnouncedBundleURL checks a URL that a node announces to a peer when it connects. Its rules are
// those of [CheckBundleURL], and the scheme must be https: a node can announce another URL with each
// connection, and must not be able to make its peers send plain requests to any server.
func CheckAnnouncedBundleURL(s string) error {
	if err := CheckBundleURL(s); err != nil {
		return err
	}
	if u, err := url.Parse(s); err != nil || u.Scheme != "https" {
		return fmt.Errorf("%q must start with https://", excerpt.Of(s))
	}
	return nil
}

// AnnouncedBundleURL returns the URL that this node announces to the peers to which it connects: the
// first https one in its own stomp.toml that fits into a STOMP header, or "" if there is none, or if
// the file can not be read or is invalid.
func (d *Dir) AnnouncedBundleURL() string {
	for _, u := range d.OwnBundleURLs() {
		escaped := len(u) + strings.Count(u, ":") + strings.Count(u, `\`)
		if CheckAnnouncedBundleURL(u) == nil && escaped <= maxHeaderValue {
			return u
		}
	}
	return ""
}

func checkURLHost(u *url.URL) error {
	if port := u.Port(); port != "" || strings.HasSuffix(u.Host, ":") {
		if n, err := strconv.ParseUint(port, 10, 16); err != nil || n == 0 {
			return errors.New("expected a port from 1 to 65535 after the colon, or no colon")
		}
	}
	if addr, err := netip.ParseAddr(u.Hostname()); err == nil {
		if addr.Zone() != "" {
			return errors.New("an IPv6 zone means nothing on other machines")
		}
		return nil
	}
	return checkDNSName(u.Hostname())
}

// bundleURLs reads the value under BundleURLsKey in a stomp.toml. It returns the
// valid URLs among the first MaxBundleURLs along with the first error, so that an invalid URL does not make the
// rest of the file useless.
func bundleURLs(v any) (urls []string, err error) {
	if v == nil {
		return nil, nil
	}
	list, ok := v.([]any)
	if !ok {
		return nil, fmt.Errorf("stomp.toml: %s: expected a list of URLs", BundleURLsKey)
	}
	if len(list) > MaxBundleURLs {
		err = fmt.Errorf("it names %d URLs, more than the %d allowed", len(list), MaxBundleURLs)
		list = list[:MaxBundleURLs]
	}
	for _, e := range list {
		s, ok := e.(string)
		urlErr := CheckBundleURL(s)
		if !ok {
			urlErr = errors.New("expected each URL to be a string")
		}
		if urlErr == nil {
			urls = append(urls, s)
		} else if err == nil {
			err = urlErr
		}
	}
	if err != nil {
		err = fmt.Errorf("stomp.toml: %s: %w", BundleURLsKey, err)
	}
	return urls, err
}
